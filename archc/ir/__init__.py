"""The intermediate representation: sizes, axes, values, the op graph of a layer and the rolled stack of a model."""
