"""What models read: query formats, tokenizers, token ids and their disk cache."""
