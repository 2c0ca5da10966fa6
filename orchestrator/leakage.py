"""Which images must never straddle a split."""

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def leak_groups(images: pd.DataFrame) -> pd.Series:
    """The group of each image, after groups that share identical pixels have been merged.

    `images`: columns group and content_hash. Two patients with one and the same image between them would put that
    image into training and test, so they count as one group, named after the first of them in sorted order.
    """
    group_codes, groups = pd.factorize(images["group"], sort=True)
    hash_codes, hashes = pd.factorize(images["content_hash"])
    # A bipartite graph of groups and pixel contents; its components are what must stay together.
    size = len(groups) + len(hashes)
    edges = coo_array((np.ones(len(images)), (group_codes, hash_codes + len(groups))), shape=(size, size))
    component = connected_components(edges, directed=False)[1][: len(groups)]
    first = pd.Series(groups).groupby(component).transform("first").to_numpy()
    return pd.Series(first[group_codes], index=images.index, name="group")
