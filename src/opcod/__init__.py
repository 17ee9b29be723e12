"""opcod: two language models teach each other, On-Policy Co-Distillation (arXiv 2606.14368)."""

__version__ = "0.1.0"
