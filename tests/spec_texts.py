"""Strategies that draw specs which nearly make sense: known words, in places where they may or may not belong."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

from archc.elaborate.settings import ModelSettings
from archc.layers.kind import Kind, Part, fields_of

Draw = Callable[[st.SearchStrategy[str]], str]

KINDS = sorted(Kind.known)
PARTS = sorted(Part.known)
FIELDS = sorted({*(name for owner in (*Kind.known.values(), *Part.known.values()) for name in fields_of(owner))})
BOUND = ["a", "b", "c", "g", "g2", "mamba", "moe"]  # what let and share give a meaning
SETTINGS = sorted(fields_of(ModelSettings))
WORDS = [*KINDS * 2, *PARTS, *FIELDS, *BOUND * 3, *SETTINGS, "true", "false", "h", "linear", "q", "sqrt", "min", "zz"]

numbers = st.sampled_from(
    [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "7",
        "8",
        "12",
        "16",
        "32",
        "64",
        "1.5",
        "1e-5",
        "4Ki",
        "2k",
        "1e20",
        "1e-40",
        "999983",
    ]
)
names = st.sampled_from(WORDS)
counts = st.sampled_from(["x1", "x2", "x3", "x7", "x1000", "x1000000007", f"x{10**20}"])
tops = st.sampled_from(["top1/2", "top2/16", "top3/2", "top1/1", f"top{10**18}/{10**19}"])


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    """What may stand behind a `=`."""
    shape = draw(st.integers(0, 9)) if depth else draw(st.integers(0, 3))
    if shape <= 2:
        return draw(numbers)
    if shape <= 5:
        return draw(names) + (draw(arguments(depth=depth - 1)) if depth and draw(st.booleans()) else "")
    if shape == 6:
        return "[" + ", ".join(draw(st.lists(names | numbers, min_size=1, max_size=3))) + "]"
    if shape == 7:
        return "-" + draw(numbers)
    return draw(values(depth=depth - 1)) + draw(st.sampled_from(["*", "/"])) + draw(numbers | names)


@st.composite
def arguments(draw: st.DrawFn, depth: int = 2) -> str:
    """`(...)`."""
    named = st.builds("{}={}".format, names, values(depth=depth))
    one = st.one_of(named, values(depth=depth), tops, names.map("{} none".format))
    return "(" + ", ".join(draw(st.lists(one, max_size=3))) + ")"


heads = st.sampled_from(["gqa(32,8)", "mha(4)", "mqa(2)", "gqa(32,12)", "gqa(4)"])
fitting = st.sampled_from(
    [
        *(
            "d_state=4",
            "window(8)",
            "d_head=6",
            "rope",
            "rope(dims=3)",
            "rope(dims=2)",
            "bias",
            "qk_norm=rms",
            "n_heads=8",
        ),
        *(
            "expand=2",
            "lora(2, on=[q])",
            "expert=a",
            "expert=relu2(8)",
            "router=softmax(renorm)",
            "in_scale=2",
            "out_norm=rms",
        ),
    ]
)
tags = st.sampled_from(
    ["every 2", "every 3 offset 1", "every 2 offset 5", "at [0, 2..3]", "every 7", "every 9973", "every 0"]
)
words = st.one_of(
    heads,
    fitting,
    fitting,
    st.builds("{}{}".format, names, arguments()),
    st.builds("{}={}".format, names, values()),
    names,
)


@st.composite
def branches(draw: st.DrawFn) -> str:
    head = draw(
        st.sampled_from([*KINDS, *BOUND, *BOUND, "attn gqa(4,2)", "swiglu(8)", "moe(expert=gelu(4)) top1/2"]) | names
    )
    head += draw(st.sampled_from(["", "", "", " "]).flatmap(lambda s: arguments() if s else st.just("")))
    return " ".join([head, *draw(st.lists(words, max_size=2))])


@st.composite
def layers(draw: st.DrawFn) -> str:
    parts = [draw(branches())]
    while len(parts) < 4 and draw(st.integers(0, 3)) == 0:
        parts += [draw(st.sampled_from([" + ", " || "])), draw(branches())]
    return "".join(parts) + (f" <- {draw(names)}" if draw(st.integers(0, 7)) == 0 else "")


@st.composite
def suffixes(draw: st.DrawFn) -> str:
    def one() -> str:
        mixer = st.sampled_from(["moe", "moe(expert=a)", "mlp none", "mlp=a", "swiglu(4)"])
        word = draw(st.one_of(mixer, fitting, words))
        return " ".join([word, *draw(st.lists(tags | tops, max_size=2))])

    return " ".join(one() for _ in range(draw(st.integers(0, 2))))


@st.composite
def groups(draw: st.DrawFn, depth: int = 2, is_block: bool = False) -> str:
    """`< items >` with repeats and suffixes, or a block of them."""

    def item() -> str:
        if depth and draw(st.integers(0, 3)) == 0:
            return draw(groups(depth=depth - 1))
        text = draw(layers())
        return f"{text} {draw(counts)} {draw(suffixes())}" if draw(st.integers(0, 2)) == 0 else text

    inside = ", ".join(item() for _ in range(draw(st.integers(1, 3))))
    repeat = draw(counts) if draw(st.booleans()) else ""
    if is_block:
        return f"block {repeat} < {inside} > {draw(suffixes())}"
    return f"< {inside} > {repeat} {draw(suffixes())}"


statements = st.one_of(
    st.builds("let {} = {}".format, st.sampled_from(BOUND) | names, layers() | groups()),
    st.builds(
        "share {}{} {} = {}".format, st.sampled_from(["g", "g2"]) | names, arguments() | st.just(""), counts, layers()
    ),
    st.builds(
        "share {}(in=concat(h, embed), residual=none, out=linear) = {}".format, st.sampled_from(["g", "g2"]), layers()
    ),
    st.builds("{} {}".format, st.sampled_from(SETTINGS) | names, values()),
    st.builds("{}{}".format, st.sampled_from(SETTINGS), arguments()),
    st.builds("{} {} {}".format, st.sampled_from(SETTINGS), values(), tags | tops),
    st.builds("model {}".format, names),
    groups(is_block=True),
)
settings = st.lists(
    st.sampled_from(
        ["vocab 32", "d_model 64", "mlp swiglu(8)", "mlp none", "context 4Ki", "norm rms(eps=1e-6)", "tied"]
    ),
    max_size=6,
    unique_by=lambda line: line.split()[0],
)
complete = st.just(["vocab 32", "d_model 64", "mlp swiglu(8)"])


PRELUDES = [
    [],
    ["let a = swiglu(8)", "let b = mamba(d_state=4)", "let c = b + attn gqa(4,2)", "share g = attn gqa(4,2) + a"],
    [
        "let b = < mamba, attn gqa(4,2) >",
        "share g2(out=linear) x2 = attn gqa(4,2) lora(2, on=[q])",
        "let c = mamba <- g2",
    ],
    ["let mamba = mamba(d_state=4)", "let moe = moe(expert=gelu(4), top1/2)", "let a = relu2(4)"],
]
sound = st.sampled_from(
    ["mamba", "attn gqa(4,2)", "b", "c", "mamba <- g", "g", "mamba || attn mha(2)", "a", "mamba2(n_heads=2, d_head=8)"]
)
sound_suffixes = st.sampled_from(
    [
        "",
        "",
        "moe every 2 top1/4",
        "moe(expert=gelu(4)) top2/8 every 3 offset 1",
        "mlp none",
        "d_state=8",
        "window(4) at [0]",
    ]
)


@st.composite
def sound_groups(draw: st.DrawFn, depth: int = 2, is_block: bool = False) -> str:
    """A group or a block that often has a meaning."""

    def item() -> str:
        if depth and draw(st.integers(0, 3)) == 0:
            return draw(sound_groups(depth=depth - 1))
        return draw(sound) + draw(st.sampled_from(["", "", " x2", " x3", " x10"]))

    inside = ", ".join(item() for _ in range(draw(st.integers(1, 3))))
    repeat = draw(st.sampled_from(["", "x2", "x5", "x1000000007"]))
    return f"{f'block {repeat} < {inside} >' if is_block else f'< {inside} > {repeat}'} {draw(sound_suffixes)}"


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A spec, one statement a line: a sound one with something added, or a heap of words."""
    is_sound = draw(st.booleans())
    lines = [*draw(complete if is_sound else settings), *draw(st.sampled_from(PRELUDES))]
    lines += draw(st.lists(statements, max_size=1 if is_sound else 3))
    lines.append(draw(sound_groups(is_block=True) if is_sound else groups(is_block=True)))
    return "\n".join(line.strip() for line in lines) + "\n"
