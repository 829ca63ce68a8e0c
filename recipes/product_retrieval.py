"""Product retrieval for your own shop: photographs in, a bundle that TF-Serving loads and Annoy searches out.

    python recipes/product_retrieval.py                              # grocery photographs (TFDML_DATA or a download)
    python recipes/product_retrieval.py --photos shop/               # your own: one folder of photographs for each product
    python recipes/product_retrieval.py --photos shop.csv            # or a table: path, label, title, price, ...
    python recipes/product_retrieval.py --backbone resnet18_v2       # a KerasCV backbone instead of the small network
    python recipes/product_retrieval.py --backbone resnet50_v2_imagenet --size 224     # ... with weights, downloaded by KerasCV

Half of the products are never trained on. The model is judged on them, and they are the catalogue that is searched: a shop's
next products are always ones that the model has not seen.
"""

from __future__ import annotations

import argparse

import keras
import keras_cv
import tensorflow as tf

import tfdml

PHOTOS = "folder, .csv file or name of a data set; of several, the first that can be had (%(default)s)"


def make_encoder(backbone: str, size: int, dimension: int) -> keras.Model:
    """Images, 0 to 255, to vectors. Every encoder scales the pixels itself, so that serving cannot forget to."""
    if backbone == "small":
        return tfdml.models.conv_encoder((size, size, 3), dimension=dimension)
    if backbone == "resnet18_v2":
        stages = {"stackwise_filters": [64, 128, 256, 512], "stackwise_blocks": [2] * 4, "stackwise_strides": [1, 2, 2, 2]}
        maps = keras_cv.models.ResNetV2Backbone(**stages, include_rescaling=True, input_shape=(size, size, 3))
    else:
        maps = keras_cv.models.ResNetV2Backbone.from_preset(backbone, input_shape=(size, size, 3))
    return keras.Sequential([maps, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(dimension)])


def make_augmentation(size: int):
    """KerasCV layers for what may differ between two photographs of one product: place, side, light, something in front."""
    layers = [
        keras_cv.layers.RandomCropAndResize((size, size), crop_area_factor=(0.7, 1.0), aspect_ratio_factor=(0.9, 1.1)),
        keras_cv.layers.RandomFlip("horizontal"),
        keras_cv.layers.RandomBrightness(0.1, value_range=(0, 255)),
        keras_cv.layers.RandomContrast(value_range=(0, 255), factor=0.2),
        keras_cv.layers.RandomCutout(height_factor=(0.0, 0.25), width_factor=(0.0, 0.25)),
    ]

    def augment(images: tf.Tensor) -> tf.Tensor:
        images = tf.cast(images, tf.float32)
        for layer in layers:
            images = layer(images, training=True)
        return images

    return augment


def main() -> None:
    arguments = parse_arguments()
    keras.utils.set_random_seed(arguments.seed)

    # 1. Photographs. Products of the test side are unseen: they share no class with the training side.
    data = tfdml.datasets.first_available(*arguments.photos.split(","), image_size=arguments.size)
    data.summary()
    train, unseen = data.split_by_class(test=0.5, seed=arguments.seed)

    # 2. Batches of P products with K photographs each: within a batch, everything is compared with everything.
    sampler = tfdml.samplers.PKSampler(
        train.labels, classes=arguments.classes, examples=arguments.examples, seed=arguments.seed
    )
    batches = sampler.dataset(train.in_memory().load, augment=make_augmentation(arguments.size))

    # 3. The model learns distances: photographs of one product close together, of different products at least a margin apart.
    encoder = make_encoder(arguments.backbone, arguments.size, arguments.dimension)
    model = tfdml.EmbeddingModel(encoder, preprocessing=train.preprocessing)
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, arguments.steps)
    model.compile(keras.optimizers.Adam(schedule), loss=tfdml.losses.TripletLoss(margin=0.2, mining="semi_hard"))
    unseen = unseen.in_memory()
    before = model.evaluate(unseen)
    epochs = min(5, arguments.steps)
    model.fit(
        batches,
        steps_per_epoch=arguments.steps // epochs,
        epochs=epochs,
        shuffle=False,  # the sampler has shuffled already
        callbacks=[tfdml.evaluation.RetrievalCallback(unseen)],
        verbose=2,
    )

    # 4. How good is it on products it has never seen, and how much of that was there before training?
    figures = model.evaluate(unseen)
    for name, result in {"untrained": before, "trained": figures}.items():
        print(f"{name:>9}: Recall@1 {result['recall_at_1']:.1%}, MAP@R {result['map_at_r']:.1%}")

    # 5. One directory with model, index and catalogue, published atomically. Every field of the catalogue comes back in the
    #    answers: here those of the data set, and one that a shop would add.
    gallery = unseen.subset(range(1, len(unseen))).with_fields(in_stock=[True] * (len(unseen) - 1))
    bundle = tfdml.bundle.export(model, gallery, to=arguments.to, recall=0.95, evaluation=figures)
    print(bundle)

    # 6. A search: bytes of a photograph in, products out. A service does the same with TF-Serving in the embedder's place.
    embedder = tfdml.bundle.Embedder(bundle.path)
    print(f"\nA photograph of {unseen.class_names[unseen.labels[0]]!r} finds:")
    for hit in bundle.search(embedder.embed([unseen.image_bytes(0)]), k=5)[0]:
        print(f"  {hit.distance:.4f}  {hit.fields['label']:<28} {hit.id}")
    print(f"\nNext: tfdml search {bundle.path} photo.jpg --picture answer.png")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", default="grocery_store,rendered_catalogue", help=PHOTOS)
    parser.add_argument("--to", default="exports/products", help="where versions are published (%(default)s)")
    parser.add_argument("--backbone", default="small", help="small, resnet18_v2, or a KerasCV preset (%(default)s)")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels (%(default)s)")
    parser.add_argument("--dimension", type=int, default=64, help="length of the embedding (%(default)s)")
    parser.add_argument("--classes", type=int, default=16, help="products in a batch, P (%(default)s)")
    parser.add_argument("--examples", type=int, default=4, help="photographs of each, K (%(default)s)")
    parser.add_argument("--steps", type=int, default=1000, help="training steps (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of split, batches and weights (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
