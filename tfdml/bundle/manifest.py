"""The manifest of a bundle: what is in it, what it was made with, and the checksum of every file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tfdml.bundle.errors import BundleError
from tfdml.bundle.layout import MANIFEST, FileRecord
from tfdml.bundle.manifest_fields import Fields
from tfdml.bundle.match_probability import KINDS, MatchProbability

FORMAT = "tfdml.bundle"
SCHEMA_VERSION = 4
"""Older versions lack what `_SINCE` names; they are read, and written back byte for byte."""
_SINCE = {"search": 2, "space": 3, "folded": 3, "match_probability": 4}
MATCH = "match"
"""The threshold that is taken where none is asked for, see `Manifest.usual_threshold`."""
LARGEST_MANIFEST = 64 << 20


@dataclasses.dataclass(frozen=True)
class ModelRecord:
    """The model of a bundle.

    Args:
        fingerprint: SHA-256 over the SavedModel's files.
        dimension: length of an embedding.
        normalised: whether embeddings have length 1.
        input_shape: height, width and channels of a decoded image.
        preprocessing: config of the `tfdml.preprocessing.ImagePreprocessing` inside `serving_default`.
        max_pixels: images with more pixels are not decoded.
        signatures: names of the SavedModel's signatures.
    """

    fingerprint: str
    dimension: int
    normalised: bool
    input_shape: tuple[int, int, int]
    preprocessing: Mapping[str, Any]
    max_pixels: int
    signatures: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A distance beyond which an answer counts as "no match", with the interval that calibration gave it.

    Args:
        distance: the threshold, in the bundle's metric.
        low: lower end of its interval.
        high: upper end of its interval.
        confidence: level of the interval, between 0 and 1.
        target: what was asked for, in words, e.g. "false accept rate 0.01".
    """

    distance: float
    low: float
    high: float
    confidence: float
    target: str


@dataclasses.dataclass(frozen=True)
class SearchRecord:
    """How the SavedModel's own search signatures search.

    Args:
        method: "exact", or "ivf": inverted lists by k-means.
        max_k: the largest k that a request may ask for.
        fields: names of the catalogue's fields that are returned with the ids.
        lists: number of lists; 0 under "exact", and so are both probes.
        probes: into how many lists a search for k up to `recall_at` + 1 looks (an item that searches finds itself as well).
        most_probes: into how many for larger k.
        recall_asked: share of the true neighbours that was asked for.
        recall: the share that the exported graph found among the `recall_at` nearest, against exact search.
        recall_at: at how many neighbours.
        most_recall: its share among the `most_recall_at` nearest.
        most_recall_at: as many as a request may ask for, without the item itself.
        recall_queries: on how many queries both were measured.
        seed: of k-means and of the sample.
    """

    method: str
    max_k: int
    fields: tuple[str, ...]
    lists: int
    probes: int
    most_probes: int
    recall_asked: float
    recall: float
    recall_at: int
    most_recall: float
    most_recall_at: int
    recall_queries: int
    seed: int


@dataclasses.dataclass(frozen=True)
class FoldedRecord:
    """Which changes of a living catalogue are in a bundle, because `tfdml compact` folded them in.

    Args:
        catalogue: the living catalogue's own name, given when it was made.
        sequence: all of its changes up to this one, and none after it.
        left_out: ids of the items whose changes are not in the bundle all the same: they have neither an embedding in its
            space nor an image to make one of.
    """

    catalogue: str
    sequence: int
    left_out: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Everything a reader must know before it opens another file of the bundle.

    On disk it is canonical JSON (sorted keys, two spaces) that carries the SHA-256 of its own content: a changed byte is
    noticed wherever it is, and the text stays readable.

    Args:
        created: UTC time, as in "2024-05-01T12:00:00Z".
        tfdml_version: version of the library that wrote the bundle.
        model: see `ModelRecord`.
        metric: "cosine" or "euclidean".
        items: number of gallery items.
        index: the index's own record: backend, build settings, recall measured against exact search.
        evaluation: retrieval figures given at export, by name; may be empty.
        thresholds: see `Threshold`; may be empty.
        libraries: versions of Python and of the libraries that wrote the bundle.
        probes: numbers of the items whose images are in the warm-up requests, in their order; may be empty.
        files: size and SHA-256 of every file of the version directory except the manifest.
        search: see `SearchRecord`; None if the SavedModel has no search signatures.
        space: names the embedding space. Embeddings of bundles with the same name can be compared, though their SavedModels
            differ: a search signature holds the gallery. "" takes the model's fingerprint: a space of its own.
        folded: see `FoldedRecord`; None if nothing was folded in.
        match_probability: how likely an answer is right, from its distance; None if that was not fitted.
        schema_version: of the file that was read.
    """

    created: str
    tfdml_version: str
    model: ModelRecord
    metric: str
    items: int
    index: Mapping[str, Any]
    evaluation: Mapping[str, float]
    thresholds: Mapping[str, Threshold]
    libraries: Mapping[str, str]
    probes: tuple[int, ...]
    files: Mapping[str, FileRecord]
    search: SearchRecord | None = None
    space: str = ""
    folded: FoldedRecord | None = None
    match_probability: MatchProbability | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if not self.space:
            object.__setattr__(self, "space", self.model.fingerprint)

    def usual_threshold(self) -> str | None:
        """The name of the threshold for those who ask for none: "match", else the first by name; None where there is none."""
        return MATCH if MATCH in self.thresholds else min(self.thresholds, default=None)

    def identity(self) -> str:
        """SHA-256 of all but the file list. The catalogue keeps a copy, so that no manifest can be put beside another's."""
        content = self._content()
        del content["files"]
        return hashlib.sha256(_canonical(content)).hexdigest()

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        content = self._content()
        return _canonical({**content, "checksum": hashlib.sha256(_canonical(content)).hexdigest()})

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Reads what `to_bytes` wrote.

        Raises:
            BundleError: for anything else: another format or a newer schema, missing, unknown or mistyped keys, a wrong
                checksum, or bytes that differ from the canonical form of their content.
        """
        content = _parse(data)
        checksum = content.pop("checksum", None)
        if checksum != hashlib.sha256(_canonical(content)).hexdigest():
            raise BundleError(
                f"{MANIFEST}: its own checksum does not match its content; it was edited or damaged. Export the bundle anew."
            )
        manifest = cls._from_content(content)
        if manifest.to_bytes() != data:
            raise BundleError(f"{MANIFEST}: not in canonical form; it was edited or damaged. Export the bundle anew.")
        return manifest

    def _content(self) -> dict[str, Any]:
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        for name, since in _SINCE.items():
            if self.schema_version < since:
                del content[name]
        return content

    @classmethod
    def _from_content(cls, content: dict[str, Any]) -> Manifest:
        top = Fields(content, "")
        top.take("format", str)
        version = top.take("schema_version", int)
        model = top.mapping("model")
        manifest = cls(
            created=top.take("created", str),
            tfdml_version=top.take("tfdml_version", str),
            model=ModelRecord(
                fingerprint=model.sha256("fingerprint"),
                dimension=model.positive("dimension"),
                normalised=model.take("normalised", bool),
                input_shape=model.shape("input_shape"),
                preprocessing=model.take("preprocessing", dict),
                max_pixels=model.positive("max_pixels"),
                signatures=model.texts("signatures"),
            ),
            metric=top.choice("metric", ("cosine", "euclidean")),
            items=top.positive("items"),
            index=top.take("index", dict),
            evaluation=top.each("evaluation", lambda fields, key: fields.number(key)),
            thresholds=top.each("thresholds", lambda fields, key: _threshold(fields.mapping(key))),
            libraries=top.each("libraries", lambda fields, key: fields.take(key, str)),
            probes=top.integers("probes"),
            files=top.each("files", lambda fields, key: _file(fields.mapping(key))),
            search=None if version < _SINCE["search"] or top.empty("search") else _search(top.mapping("search")),
            space="" if version < _SINCE["space"] else top.take("space", str),
            folded=None if version < _SINCE["folded"] or top.empty("folded") else _folded(top.mapping("folded")),
            match_probability=None
            if version < _SINCE["match_probability"] or top.empty("match_probability")
            else _match_probability(top.mapping("match_probability")),
            schema_version=version,
        )
        model.end()
        top.end()
        return manifest


def _search(fields: Fields) -> SearchRecord:
    method = fields.choice("method", ("exact", "ivf"))
    least = 0 if method == "exact" else 1
    record = SearchRecord(
        method=method,
        max_k=fields.positive("max_k"),
        fields=fields.texts("fields"),
        lists=fields.positive("lists", least),
        probes=fields.positive("probes", least),
        most_probes=fields.positive("most_probes", least),
        recall_asked=fields.number("recall_asked"),
        recall=fields.number("recall"),
        recall_at=fields.positive("recall_at"),
        most_recall=fields.number("most_recall"),
        most_recall_at=fields.positive("most_recall_at"),
        recall_queries=fields.positive("recall_queries"),
        seed=fields.positive("seed", 0),
    )
    fields.end()
    return record


def _match_probability(fields: Fields) -> MatchProbability:
    kind = fields.choice("kind", KINDS)
    distances, probabilities = fields.numbers("distances"), fields.numbers("probabilities")
    intercept, slope = fields.number("intercept"), fields.number("slope")
    answers = fields.positive("answers")
    fields.end()
    try:
        return MatchProbability(kind, distances, probabilities, intercept, slope, answers)
    except ValueError as error:
        raise BundleError(f"{MANIFEST}: {error} Export the bundle anew.") from error


def _folded(fields: Fields) -> FoldedRecord:
    record = FoldedRecord(
        catalogue=fields.take("catalogue", str),
        sequence=fields.positive("sequence", 0),
        left_out=fields.texts("left_out"),
    )
    fields.end()
    return record


def _threshold(fields: Fields) -> Threshold:
    threshold = Threshold(
        distance=fields.number("distance"),
        low=fields.number("low"),
        high=fields.number("high"),
        confidence=fields.number("confidence"),
        target=fields.take("target", str),
    )
    fields.end()
    return threshold


def _file(fields: Fields) -> FileRecord:
    record = FileRecord(bytes=fields.positive("bytes", 0), sha256=fields.sha256("sha256"))
    fields.end()
    return record


def _canonical(content: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(content, sort_keys=True, indent=2, allow_nan=False) + "\n").encode("ascii")
    except (TypeError, ValueError) as error:
        raise BundleError(
            f"{MANIFEST}: cannot hold its content: {error}. Expected finite numbers, strings and lists."
        ) from error


def _parse(data: bytes) -> dict[str, Any]:
    if len(data) > LARGEST_MANIFEST:
        raise BundleError(f"{MANIFEST}: {len(data):,} bytes are more than a manifest can have ({LARGEST_MANIFEST:,}).")
    try:
        content = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{MANIFEST}: not JSON: {error}. It is damaged: export the bundle anew.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BundleError(f"{MANIFEST}: not the manifest of a tfdml bundle (its key 'format' is not {FORMAT!r}).")
    version = content.get("schema_version")
    if type(version) is not int or version < 1:
        raise BundleError(f"{MANIFEST}: 'schema_version' is {str(version)[:40]!r}; expected an integer >= 1. It is damaged.")
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"{MANIFEST}: schema version {version} was made by a newer tfdml; this one reads up to {SCHEMA_VERSION}. "
            "Upgrade tfdml."
        )
    return content
