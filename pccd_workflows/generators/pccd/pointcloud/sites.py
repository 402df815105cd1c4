"""Which points of a cloud are copies of one atom: the shortest description wins.

A candidate assigns each of the 128 points to a site. It is judged by the length, in nats, of a
message that tells the cloud by it: the scatter of the points around their sites' centres and of
their likelihoods around one element each, plus a price for each site's parameters and for the
assignment itself (minimum description length; the widths of both scatters are fitted, so there is
no tolerance to choose). A share of the points may lie anywhere: a few strays neither move a
centre nor make a site. All distances are minimum image distances in fractional coordinates, where
the noise of a diffusion model is isotropic: 0.99 and 0.01 are one site.

Candidates come from what is known of the representation (point i belongs to atom
``site_of_point(n)[i]`` for n = 1, 2, ..., at no price) and from average-linkage clustering (at
the price of naming each point's site), so that points in any order are understood too. What
costs more than the best candidate so far even if it fitted perfectly is not tried.
"""

from dataclasses import dataclass
from functools import partial
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from scipy.special import expit

from pccd_workflows.generators.pccd.pointcloud.encode import Spread, site_of_point

STRAY_SHARE = 0.05
"""Prior share of points that belong to no site."""
MIN_SCATTER = 1e-3
"""Scatter below this tells nothing: a clean cloud fits n and 2n sites alike."""
REFINEMENTS = 3
"""Rounds of reweighting; the centres move by less than 1e-3 afterwards."""
DBSCAN_EPS = 0.05
"""Neighbourhood radius of DBSCAN, fractional."""
DBSCAN_MIN_SAMPLES = 3
TOGETHER = 8
"""Numbers of sites that are tried at once."""

Floats = NDArray[np.floating]
Labels = NDArray[np.intp]


@dataclass(frozen=True)
class Sites:
    """An assignment of points to sites, and what follows from it.

    Attributes
    ----------
    labels
        Site of each point, shape (n_points,).
    centres
        Shape (n_sites, 3), fractional, not wrapped.
    likelihoods
        Mean likelihood of each element at each site, shape (n_sites, n_elements).
    scatter
        Width (standard deviation per axis) of the points around their centres, fractional.
    strays
        Share of the points that belong to no centre.
    nats
        Length of the description.
    """

    labels: Labels
    centres: Floats
    likelihoods: Floats
    scatter: float
    strays: float
    nats: float

    @property
    def columns(self) -> Labels:
        """Index of each site's element, shape (n_sites,)."""
        return np.asarray(self.likelihoods.argmax(axis=1))


def find_sites(
    coordinates: Floats, likelihoods: Floats, *, spread: Spread | None, max_sites: int
) -> Sites:
    """Return the sites with the shortest description.

    Parameters
    ----------
    coordinates
        Shape (n_points, 3), fractional, of any period.
    likelihoods
        Shape (n_points, n_elements).
    spread
        How the points were shared among the atoms; None tries both ways.
    max_sites
        Most sites to look for.
    """
    n_points, n_elements = likelihoods.shape
    distances = periodic_distances(coordinates)
    fit = partial(fit_sites, coordinates, likelihoods, distances=distances)
    sizes = np.arange(1, max_sites + 1)
    least = _site_nats(sizes, n_points) + _least_nats(n_points, n_elements)

    best = fit(_known(sizes[:TOGETHER], spread, n_points))
    for tried in range(TOGETHER, max_sites, TOGETHER):
        if best.nats <= least[tried]:
            break
        known = fit(_known(sizes[tried : tried + TOGETHER], spread, n_points))
        best = min(best, known, key=attrgetter("nats"))

    label_nats = n_points * np.log(sizes)
    most = int((least + label_nats < best.nats).sum())
    if most > 1:  # one site is known already
        clustered = _clusterings(distances + different_elements(likelihoods), most)
        others = fit(clustered, label_nats=label_nats[clustered.max(axis=1)])
        best = min(best, others, key=attrgetter("nats"))
    return best


def dbscan_labels(coordinates: Floats, likelihoods: Floats) -> Labels:
    """Return the sites that DBSCAN finds, elements apart, shape (n_points,); empty if none.

    Points that DBSCAN calls noise go with the nearest point that it does not.
    """
    from sklearn.cluster import DBSCAN

    distances = periodic_distances(coordinates) + different_elements(likelihoods)
    model = DBSCAN(eps=DBSCAN_EPS, min_samples=DBSCAN_MIN_SAMPLES, metric="precomputed")
    labels = model.fit_predict(distances)
    clustered = np.flatnonzero(labels >= 0)
    if not len(clustered):
        return np.empty(0, dtype=np.intp)
    return in_order(labels[clustered[distances[:, clustered].argmin(axis=1)]])


def fit_sites(
    coordinates: Floats,
    likelihoods: Floats,
    labels: Labels,
    *,
    label_nats: Floats | float = 0.0,
    distances: Floats | None = None,
) -> Sites:
    """Return the sites of that assignment of points to sites which has the shortest description.

    Parameters
    ----------
    labels
        Shape (n_assignments, n_points): site of each point, numbered from 0 without gaps.
    label_nats
        Price of each assignment, shape (n_assignments,).
    distances
        From `periodic_distances`, if known.
    """
    if distances is None:
        distances = periodic_distances(coordinates)
    n_sites = labels.max(axis=1) + 1
    members = (labels[:, None] == np.arange(n_sites.max())[:, None]).astype(float)
    centres = coordinates[_medoids(distances, members)]
    offsets = _offsets(coordinates, centres, labels)
    widths = _typical_width(offsets)
    for _ in range(REFINEMENTS):
        weights = _kept(offsets, widths)
        totals = np.maximum(members @ weights[..., None], np.finfo(float).tiny)
        centres = centres + members @ (weights[..., None] * offsets) / totals
        offsets = _offsets(coordinates, centres, labels)
        widths = _width(offsets, weights)

    means = members @ likelihoods / np.maximum(members.sum(axis=2, keepdims=True), 1)
    expected = np.eye(likelihoods.shape[1])[means.argmax(axis=2)]
    misfits = likelihoods - np.take_along_axis(expected, labels[..., None], axis=1)
    nats = label_nats + _site_nats(n_sites, len(coordinates))
    nats += _nats(offsets, widths) + _nats(misfits, _typical_width(misfits))

    best = int(nats.argmin())
    return Sites(
        labels[best],
        centres[best, : n_sites[best]],
        means[best, : n_sites[best]],
        float(widths[best]),
        1 - float(_kept(offsets, widths)[best].mean()),
        float(nats[best]),
    )


def periodic_distances(coordinates: Floats) -> Floats:
    """Return minimum image distances, shape (n_points, n_points), fractional."""
    return np.asarray(
        np.linalg.norm(_nearest_image(coordinates[:, None] - coordinates[None]), axis=2)
    )


def different_elements(likelihoods: Floats) -> NDArray[np.bool_]:
    """Return whether two points have different elements, shape (n_points, n_points)."""
    columns = likelihoods.argmax(axis=1)
    return np.asarray(columns[:, None] != columns[None])


def in_order(labels: NDArray[np.integer]) -> Labels:
    """Return the labels renumbered from 0 in order of their first points."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.intp)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _known(sizes: Labels, spread: Spread | None, n_points: int) -> Labels:
    """Return which site each point has in clouds of so many sites, (n_assignments, n_points)."""
    spreads: tuple[Spread, ...] = ("even", "seed") if spread is None else (spread,)
    return np.array(
        [
            site_of_point(n_sites, spread=way, n_points=n_points)
            for n_sites in sizes.tolist()
            for way in spreads
        ]
    )


def _clusterings(distances: Floats, max_sites: int) -> Labels:
    """Return average-linkage clusterings into `max_sites` sites ... 1, (max_sites, n_points)."""
    n_points = len(distances)
    labels = np.arange(n_points)
    found = []
    merges = linkage(squareform(distances, checks=False), "average")[:, :2]
    for step, (first, second) in enumerate(merges, start=1):
        labels = np.where((labels == first) | (labels == second), n_points - 1 + step, labels)
        if n_points - step <= max_sites:
            found.append(in_order(labels))
    return np.array(found)


def _site_nats(n_sites: Labels, n_points: int) -> Floats:
    """Return the price of so many sites: BIC, half a logarithm for each of four parameters."""
    return np.asarray(2 * n_sites * np.log(3 * n_points))


def _least_nats(n_points: int, n_elements: int) -> float:
    """Return the description length of points that fit perfectly, a bound for all others."""
    narrowest = np.array([MIN_SCATTER])
    perfect = [np.zeros((1, n_points, n_axes)) for n_axes in (3, n_elements)]
    return float(sum(_nats(offsets, narrowest)[0] for offsets in perfect))


def _medoids(distances: Floats, members: Floats) -> Labels:
    """Return which point of each site is nearest to all of its points, (..., n_sites)."""
    belonging = members.astype(np.float32)
    totals = np.where(belonging > 0, belonging @ distances.astype(np.float32), np.inf)
    return np.asarray(totals.argmin(axis=-1))


def _offsets(coordinates: Floats, centres: Floats, labels: Labels) -> Floats:
    """Return the points' minimum image offsets from their centres, (n_assignments, n_points, 3)."""
    return _nearest_image(coordinates - np.take_along_axis(centres, labels[..., None], axis=1))


def _nearest_image(difference: Floats) -> Floats:
    """Return a difference of fractional coordinates brought to [-0.5, 0.5]."""
    return np.asarray(difference - np.round(difference))


def _typical_width(offsets: Floats) -> Floats:
    """Return Gaussian widths per axis, (n_assignments,), from medians: strays barely matter."""
    n_axes = offsets.shape[-1]
    median_of_chi2 = n_axes * (1 - 2 / (9 * n_axes)) ** 3  # Wilson and Hilferty 1931
    squares = np.median(_squares(offsets), axis=-1) / median_of_chi2
    return np.asarray(np.sqrt(squares + MIN_SCATTER**2))


def _width(offsets: Floats, weights: Floats) -> Floats:
    """Return Gaussian widths per axis, (n_assignments,), of points weighted by `_kept`."""
    squares = (weights * _squares(offsets)).sum(axis=-1) / weights.sum(axis=-1)
    return np.asarray(np.sqrt(squares / offsets.shape[-1] + MIN_SCATTER**2))


def _squares(offsets: Floats) -> Floats:
    """Return squared lengths, without the last axis."""
    return np.asarray(np.einsum("...i,...i->...", offsets, offsets))


def _log_gaussian(offsets: Floats, widths: Floats) -> Floats:
    """Return the log density of each offset, (n_assignments, n_points)."""
    norms = offsets.shape[-1] * np.log(np.sqrt(2 * np.pi) * widths)
    return np.asarray(-_squares(offsets) / (2 * widths**2)[:, None] - norms[:, None])


def _kept(offsets: Floats, widths: Floats) -> Floats:
    """Return the probability that each point is no stray, (n_assignments, n_points).

    Strays lie anywhere in the unit cell of fractional coordinates: density one.
    """
    log_odds = _log_gaussian(offsets, widths) + np.log((1 - STRAY_SHARE) / STRAY_SHARE)
    return np.asarray(expit(log_odds))


def _nats(offsets: Floats, widths: Floats) -> Floats:
    """Return the description lengths of offsets that are Gaussian or stray, (n_assignments,)."""
    gaussian = np.log(1 - STRAY_SHARE) + _log_gaussian(offsets, widths)
    return np.asarray(-np.logaddexp(gaussian, np.log(STRAY_SHARE)).sum(axis=-1))
