"""Which images must never straddle a split."""

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def leak_groups(images: pd.DataFrame) -> pd.Series:
    """The group of each image, after groups that share identical pixels have been merged.

    `images`: columns group, content_hash and any number of seen_<size>, where missing is like
    nothing else. Two patients with one and the same image between them, in the file or at a size at
    which a model sees it, would put that image into training and test, so they count as one group,
    named after the first of them in sorted order.
    """
    group_codes, groups = pd.factorize(images["group"], sort=True)
    size, edges = len(groups), []
    for column in [
        "content_hash",
        *(name for name in map(str, images.columns) if name.startswith("seen_")),
    ]:
        codes, contents = pd.factorize(images[column])
        edges.append(np.stack([group_codes, codes + size])[:, codes >= 0])
        size += len(contents)
    # A bipartite graph of groups and pixel contents; its components are what must stay together.
    links = np.concatenate(edges, axis=1)
    graph = coo_array((np.ones(links.shape[1]), (links[0], links[1])), shape=(size, size))
    component = connected_components(graph, directed=False)[1][: len(groups)]
    first = pd.Series(groups).groupby(component).transform("first").to_numpy()
    return pd.Series(first[group_codes], index=images.index, name="group")
