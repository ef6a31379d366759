"""Make vectors and calculate with them."""

ORDER = 60
