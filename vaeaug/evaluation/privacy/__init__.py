"""Do synthetic images, or the generator, give away training images?"""
