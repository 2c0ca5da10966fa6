"""What all of rayfold's matplotlib figures have in common; each adds its own sizes."""

#: Of Okabe & Ito's palette, which the colour-blind can tell apart, and a grey.
BLUE, GREY = "#0072B2", "#767676"
COMMON = {
    "text.parse_math": False,  # a '$' in a class name is a '$'
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
}
