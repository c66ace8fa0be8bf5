"""``make demo-llm``: which rows taught a language model its answer?"""
