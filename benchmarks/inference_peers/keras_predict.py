"""Keras's `predict`: `NETWORK:WEIGHTS`."""

from measure import model, serve
from networks import with_probabilities

classifier = with_probabilities(*model().split(":"))
serve(lambda images: classifier.predict(images, batch_size=len(images), verbose=0))
