"""Policies on fewer demonstrations or fewer prompts: what would more of them gain?"""
