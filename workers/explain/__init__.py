"""Where in an image a classifier looked: heat maps, what they lie on, and pictures of them."""
