"""What the documentation's pages are built from beside docs/: the options, the maths and the files they link to."""
