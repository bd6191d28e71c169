"""Others' words: OpenAI's two ways of asking and Ollama's, put into prompts of ours, each answer with its energy."""
