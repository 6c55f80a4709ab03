"""The stages, one file each: a stage is its batches and its loss."""
