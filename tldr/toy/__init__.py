"""The toy world: posts, authors, writers and labelers whose true preference is known."""
