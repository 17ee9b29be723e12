import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: several processes with all threads each are slow

import pytest
from transformers import AutoTokenizer

from opcod.chat import Chat
from tiny import build_folder, load_tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """The folder of a tiny Llama with random weights."""
    return build_folder(tmp_path_factory.mktemp("tiny") / "tiny-llama")


@pytest.fixture
def tiny_base(tiny_folder):
    """The tiny Llama in memory, in float32; a fresh one for every test, since adapters are put into it."""
    return load_tiny(tiny_folder)


@pytest.fixture(scope="session")
def chat(tiny_folder):
    """The tiny Llama's tokenizer with its chat template."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    return Chat(tokenizer, (tokenizer.eos_token_id,))
