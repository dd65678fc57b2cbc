"""Colours of pictures that colour-blind people tell apart, and quiet ones besides.

Okabe and Ito, 2008, https://jfly.uni-koeln.de/color/.
"""

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#9A5B84"
RED = "#B3261E"
GREY, INK, GRID = "#8A8F98", "#22262B", "#E3E6EA"
