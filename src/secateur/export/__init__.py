"""Write models for other runtimes: GGUF for llama.cpp."""
