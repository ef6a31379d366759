"""Methods that the paper compares with, beyond tuning from another start."""
