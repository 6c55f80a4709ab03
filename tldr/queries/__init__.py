"""What models see: formats, tokenizers, tokens kept on disk."""
