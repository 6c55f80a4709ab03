"""Reward models on labels that were asked for in different ways: do chosen questions save labels?"""
