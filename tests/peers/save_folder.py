"""Turns a GGUF file into a folder of safetensors, in the environment of transformers: `save_folder.py GGUF FOLDER`."""

import importlib
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    gguf, folder = Path(sys.argv[1]), sys.argv[2]
    where = {"gguf_file": gguf.name, "local_files_only": True}
    read = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, **where)
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **where)
    config = transformers.AutoConfig.from_pretrained(gguf.parent, **where)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    written = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    written.load_state_dict(read.state_dict())
    written.generation_config.eos_token_id = tokenizer.eos_token_id
    written.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
