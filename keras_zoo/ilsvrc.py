"""Who won ILSVRC's classification task, from its first year to its last, and by what error.

The ImageNet Large Scale Visual Recognition Challenge (Russakovsky et al., IJCV 2015,
arXiv:1409.0575) was held from 2010 to 2017. The errors are those of its organisers' results pages:
top-5, in per cent, over the test images, which nobody but them could label. From 2014 on
classification was a column of the task with localisation. Entries from 2012 on are ensembles of
networks, looking at many crops of each image; a single network's single crop has a higher error.
Standard library only.
"""

from dataclasses import dataclass

from keras_zoo.registry import Card

_RESULTS = "https://image-net.org/challenges/LSVRC/{}/results"


@dataclass(frozen=True)
class Entry:
    """What a team entered.

    Args:
        year: of the challenge.
        team: as it called itself.
        method: what it is known by.
        top5_error: in per cent, trained on the challenge's images alone.
        top5_error_with_more: the same of its entry that other images helped to train, if any.
        place: in the ranking of the entries with the challenge's images alone.
        networks: how the zoo's networks of its family are called, or begin; if any.
    """

    year: int
    team: str
    method: str
    top5_error: float
    top5_error_with_more: float | None = None
    place: int = 1
    networks: str | None = None

    @property
    def source(self) -> str:
        """The organisers' page with the results of the year."""
        return _RESULTS.format(self.year)

    def has(self, card: Card) -> bool:
        """Whether a network is of the entry's family and year.

        It may differ: the entries of 2014 had no batch normalisation, and of some families the zoo
        has other depths.
        """
        begins = self.networks is not None and card.name.startswith(self.networks)
        return begins and card.year == self.year


ENTRIES = (
    Entry(2010, "NEC-UIUC", "SIFT and LBP features, linear SVM", 28.191),
    Entry(2011, "XRCE", "Fisher vectors, linear SVM", 25.770),
    Entry(2012, "SuperVision", "AlexNet", 16.422, 15.315, networks="alexnet"),
    Entry(2013, "Clarifai", "networks after Zeiler and Fergus", 11.743, 11.197),
    Entry(2014, "GoogLeNet", "GoogLeNet", 6.656, networks="googlenet"),
    Entry(2014, "VGG", "VGG", 7.325, place=2, networks="vgg"),
    Entry(2015, "MSRA", "ResNet", 3.567, networks="resnet"),
    Entry(2016, "Trimps-Soushen", "networks after Inception and ResNet", 2.991),
    Entry(2017, "WMW", "SENet", 2.251, networks="seresnet"),
)
