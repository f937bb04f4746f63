"""The verb `explore`: a look at the pictures of a source before anything is trained on them."""
