"""What the authors' code does and the paper does not say, as numbered in docs/quirks.md. The core knows none of it."""
