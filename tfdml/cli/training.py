"""`tfdml train` and `tfdml evaluate`."""

from __future__ import annotations

import json
import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tfdml._checks import check_choice, check_positive
from tfdml.cli.calibrating import Far, Fir, Precision, as_record, calibrated
from tfdml.cli.console import figures_table, heading, load_tensorflow, say, spoken

if TYPE_CHECKING:
    from tfdml.datasets import Dataset
    from tfdml.models import EmbeddingModel
    from tfdml.preprocessing import ImagePreprocessing

MODEL_FILE, RUN_FILE = "model.keras", "run.json"
Curves = dict[str, list[list[float]]]
LOSSES = ("triplet", "contrastive")

Data = Annotated[
    str,
    typer.Argument(
        help="A folder with one folder of images for each class, a .csv file (path, label, ...), or one of "
        "grocery_store, omniglot, mnist, rendered_catalogue.",
        show_default=False,
    ),
]


def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the model and what is known of it.")] = Path("runs/latest"),
    test: Annotated[
        float, typer.Option(help="Share of the classes kept out of training, to judge the model on. 0 trains on all.")
    ] = 0.3,
    image_size: Annotated[int, typer.Option(help="Side of the square that images are cropped to, in pixels.")] = 64,
    dimension: Annotated[int, typer.Option(help="Length of the embedding.")] = 64,
    loss: Annotated[str, typer.Option(help="triplet or contrastive.")] = "triplet",
    mining: Annotated[
        str, typer.Option(help="For the triplet loss: semi_hard, hard, all, random or distance_weighted.")
    ] = "semi_hard",
    margin: Annotated[float, typer.Option(help="Margin of the loss; 0 takes the loss's own default.")] = 0.0,
    classes: Annotated[int, typer.Option(help="Classes in a batch (P).")] = 16,
    examples: Annotated[int, typer.Option(help="Images of each class in a batch (K).")] = 4,
    steps: Annotated[int, typer.Option(help="Training steps in all.")] = 1000,
    learning_rate: Annotated[float, typer.Option(help="Of Adam at the start; it falls to 0 along a cosine.")] = 1e-3,
    flip: Annotated[bool, typer.Option(help="Mirror images in training. Not for letters and digits.")] = True,
    on_unreadable: Annotated[str, typer.Option(help="What to do about files that are not images: error or skip.")] = "error",
    far: Far = None,
    fir: Fir = None,
    precision: Precision = None,
    seed: Annotated[int, typer.Option(help="Of the split, the batches and the weights.")] = 0,
) -> None:
    """Trains an embedding on labelled images and judges it on classes it has not seen.

    Writes OUT/model.keras, OUT/run.json (settings, classes kept out, figures, curves) and prints the figures beside raw pixels.
    With --far, --fir or --precision it also calibrates which answers are a match; export then writes that into the bundle.

    [bold]Example:[/bold]  tfdml train photos/ --out runs/shop --steps 2000
    """
    load_tensorflow()
    check_choice("loss", loss, LOSSES)
    check_positive("steps", steps)
    dataset = load_data(data, image_size, on_unreadable)
    if test:
        if dataset.num_classes * test < 1.5 or dataset.num_classes < 3:
            raise ValueError(
                f"--test {test:g}: keeps fewer than two of {dataset.num_classes} classes out of training, and a model cannot "
                "be judged on one class. Take a larger share, or --test 0 to train on all classes and judge on none."
            )
        training, unseen = dataset.split_by_class(test=test, seed=seed)
    else:
        training, unseen = dataset, None
    say(
        f"{len(training):,} images of {training.num_classes} classes to train on"
        + (f"; {len(unseen):,} images of {unseen.num_classes} classes kept out." if unseen else ".")
    )
    model, figures, history = fit(
        training,
        unseen,
        dimension=dimension,
        loss=make_loss(loss, mining, margin),
        classes=classes,
        examples=examples,
        steps=steps,
        learning_rate=learning_rate,
        flip=flip,
        seed=seed,
    )
    save_run(out, model, data, unseen, figures, history, seed=seed, steps=steps, loss=loss, skipped=dataset.skipped)
    if any(rate is not None for rate in (far, fir, precision)):
        # After the run is saved: a rate that cannot be kept must not cost the training.
        held_out = unseen.with_preprocessing(model.preprocessing or unseen.preprocessing) if unseen else None
        run = load_run(out) | as_record(calibrated(model, held_out, far, fir, precision))
        (out / RUN_FILE).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    following = f"tfdml export {shlex.quote(str(out))} {shlex.quote(data)} --to exports/products"
    say(escape(f"Model and figures are in {out}. Next: {following}"))
    if unseen:
        say(escape(f"To see what it does and why: tfdml report {shlex.quote(str(out))}"))


def evaluate(
    model: Annotated[Path, typer.Argument(help="A folder written by train, or a .keras file.", show_default=False)],
    data: Data,
    all_classes: Annotated[bool, typer.Option(help="Judge on all classes, also those that were trained on.")] = False,
    by: Annotated[
        str | None, typer.Option(help="Also tell the figures by label, or by another field of the data (category, camera).")
    ] = None,
    intervals: Annotated[bool, typer.Option(help="Also tell the 95% interval of each figure, drawing classes.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
    on_unreadable: Annotated[str, typer.Option(help="What to do about files that are not images: error or skip.")] = "error",
) -> None:
    """Measures retrieval with a trained model: every image is a query against all others.

    Of a folder written by train, only the classes kept out of training count, unless --all-classes is given.
    """
    load_tensorflow()
    from tfdml.evaluation import evaluate_dataset

    loaded, preprocessing, unseen = load_model(model)
    dataset = load_data(data, None, on_unreadable).with_preprocessing(preprocessing)
    if unseen and not all_classes:
        _, dataset = dataset.split_by_class(test=unseen)
    fields = {"label": [dataset.class_names[number] for number in dataset.labels], **dataset.fields}
    if by is not None:
        check_choice("--by", by, fields)
    found = evaluate_dataset(loaded, dataset)
    figures = found.as_dict()
    what = "unseen classes" if unseen and not all_classes else "all classes"
    figures_table({"model": figures}, f"{len(dataset):,} images of {dataset.num_classes} {what}")
    if intervals:
        for name, interval in found.intervals().items():
            say(f"{spoken(name):<12} {interval}")
    if by is not None:
        say(escape(str(found.by([str(value) for value in fields[by]], by))))
    if json_file:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def load_data(name: str, image_size: int | None, on_unreadable: str = "error", quiet: bool = False) -> Dataset:
    from tfdml import datasets

    options: dict[str, Any] = {} if image_size is None else {"image_size": image_size}
    if name not in datasets.names() and not datasets.is_sharded(name):
        options["on_unreadable"] = on_unreadable
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what was skipped is told below
            dataset = datasets.load(name, **options)
    except datasets.UnreadableImageError as error:
        raise ValueError(str(error).replace("on_unreadable='skip'", "--on-unreadable skip")) from error
    for file, reason in () if quiet else dataset.skipped:
        say(f"[yellow]skipped[/yellow]  {escape(file)}: {escape(reason)}")
    return dataset


def load_model(path: Path) -> tuple[EmbeddingModel, ImagePreprocessing, list[str]]:
    """The model at `path`, its preprocessing, and the names of the classes it was not trained on, where that is known."""
    import keras

    import tfdml

    file = path
    unseen: list[str] = load_run(path).get("unseen_classes", [])
    if path.is_dir():
        file = path / MODEL_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: there is no such model. Expected a folder written by `tfdml train`, or a .keras file."
        )
    # Keras finds only classes that are registered, and a room registers its classes when it is imported.
    from tfdml import layers, losses, mining, models  # noqa: F401

    # Not compiled: nothing is trained here, and a loss of the user's own is not known here.
    model = keras.models.load_model(file, compile=False)
    if not isinstance(model, tfdml.EmbeddingModel) or model.preprocessing is None:
        raise ValueError(
            f"{file}: expected a tfdml.EmbeddingModel with its preprocessing, as `tfdml train` saves it. "
            "Export other models from Python with tfdml.bundle.export."
        )
    return model, model.preprocessing, unseen


def load_run(path: Path) -> dict[str, Any]:
    """What `train` wrote about the run, or nothing."""
    run = path / RUN_FILE
    return json.loads(run.read_text(encoding="utf-8")) if run.is_file() else {}


def make_loss(name: str, mining: str, margin: float) -> Any:
    from tfdml import losses

    options: dict[str, Any] = {"margin": margin} if margin else {}
    return losses.ContrastiveLoss(**options) if name == "contrastive" else losses.TripletLoss(mining=mining, **options)


def fit(
    training: Dataset,
    unseen: Dataset | None,
    *,
    dimension: int,
    loss: Any,
    classes: int,
    examples: int,
    steps: int,
    learning_rate: float,
    flip: bool,
    seed: int,
    epochs: int = 5,
) -> tuple[EmbeddingModel, dict[str, dict[str, float]], Curves]:
    """Trains a small convolutional encoder; returns it, its figures and the two floors on the unseen classes, and curves."""
    import keras

    import tfdml
    from tfdml.augmentation import RandomCropFlip

    keras.utils.set_random_seed(seed)
    height, width, channels = training.preprocessing.shape
    # Trained on random crops of slightly larger images, judged and served on the centre of the same scale.
    larger = (height + height // 8, width + width // 8)
    preprocessing = tfdml.preprocessing.ImagePreprocessing((height, width), channels, training.preprocessing.fit, larger)
    batches = tfdml.samplers.PKSampler(training.labels, min(classes, training.num_classes), examples, seed=seed).dataset(
        training.with_preprocessing(preprocessing.uncropped()).in_memory().load,
        augment=RandomCropFlip(height, width, flip=flip, light=0.1 if channels == 3 else 0.0),
    )
    encoder = tfdml.models.conv_encoder((height, width, channels), dimension=dimension)
    model = tfdml.EmbeddingModel(encoder, preprocessing=preprocessing)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps)), loss=loss)

    figures: dict[str, dict[str, float]] = {}
    sample = training.with_preprocessing(preprocessing)
    # A soft margin stands where a loss has none.
    margin = getattr(loss, "margin", "soft")
    diagnose = tfdml.evaluation.Diagnose(sample, margin, every=max(1, steps // 10), prefix=None, seed=seed)
    callbacks: list[Any] = [diagnose]
    if unseen:
        unseen = unseen.with_preprocessing(preprocessing).in_memory()
        figures["raw pixels"] = tfdml.evaluation.retrieval(
            tfdml.evaluation.raw_pixels(unseen), unseen.labels, metric="euclidean"
        ).as_dict()
        figures["untrained network"] = model.evaluate(unseen)
        callbacks.append(tfdml.evaluation.RetrievalCallback(unseen, verbose=0))
    heading(f"Training for {steps} steps")
    # As many epochs as divide the steps, so that no step is lost.
    epochs = max(number for number in range(1, epochs + 1) if steps % number == 0)
    options: dict[str, Any] = {"steps_per_epoch": steps // epochs, "epochs": epochs, "shuffle": False, "verbose": 2}
    fitted = model.fit(diagnose.watch(batches), callbacks=callbacks, **options)
    if unseen:
        figures["trained"] = model.evaluate(unseen)
        figures_table(figures, f"{len(unseen):,} images of {unseen.num_classes} classes never trained on")
    return model, figures, _curves(fitted.history, diagnose, steps // epochs)


def save_run(
    out: Path,
    model: EmbeddingModel,
    data: str,
    unseen: Dataset | None,
    figures: dict[str, dict[str, float]],
    history: Curves,
    **settings: Any,
) -> None:
    """The model, and beside it what is known of the run, for `evaluate`, `report` and people."""
    out.mkdir(parents=True, exist_ok=True)
    model.save(out / MODEL_FILE)
    run = {
        "data": data,
        **settings,
        "unseen_classes": list(unseen.class_names) if unseen else [],
        "figures": figures,
        "history": history,
    }
    (out / RUN_FILE).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")


def _curves(epochs: dict[str, list[float]], diagnose: Any, steps: int) -> Curves:
    """For each name the steps and the values: the loss, what was seen of a sample, and the figures on the unseen classes."""
    curves: Curves = {"loss": [list(column) for column in zip(*diagnose.losses, strict=True)]} if diagnose.losses else {}
    for name in diagnose.history[0] if diagnose.history else ():
        if name != "step":
            seen = [row for row in diagnose.history if name in row]
            curves[name] = [[row["step"] for row in seen], [row[name] for row in seen]]
    for name, values in epochs.items():
        if name.startswith("val_"):
            curves[name] = [[steps * (number + 1) for number in range(len(values))], values]
    return curves
