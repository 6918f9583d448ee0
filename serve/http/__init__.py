"""OpenAI's audio API over HTTP: forms and checks, answers and errors."""
