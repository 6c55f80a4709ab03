"""Length, copying and wording of texts."""
