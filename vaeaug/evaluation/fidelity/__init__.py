"""How close do synthetic images come to real ones that the generator never saw?"""
