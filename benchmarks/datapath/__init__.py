"""The data path against a C program that does the same: what migpool's Python costs, row by row."""
