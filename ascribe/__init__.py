"""Ascribe: which training examples made this model behave like that, and by how much?"""
