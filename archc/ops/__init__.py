"""The vocabulary of operations: one file a family, each saying all that archc knows about its mathematics."""
