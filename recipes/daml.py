"""DAML: train an encoder against a generator that turns its negatives into harder ones.

    python recipes/daml.py                             # Omniglot (TFDML_DATA or a download), or the rendered catalogue
    python recipes/daml.py --steps 1000 --seeds 0 1 2
    python recipes/daml.py --mining random --regular 1 --adversarial 50     # the paper's weights and choice of negatives

Most negatives of a triplet loss are easy: they lie far away and teach nothing. Duan, Zheng, Lin, Lu and Zhou ("Deep Adversarial
Metric Learning", CVPR 2018) let a generator learn to make hard ones out of them: near the anchor, near the negative that they
are made from, and mistaken for positives by the metric of the moment. The encoder learns to tell them apart.

The paper's claim is that DAML beats the loss that it stands on. What is printed is retrieval on classes that were never trained
on, after the same number of steps, and two more rows that show where a difference comes from: DAML with a generator that never
learns, which leaves the chosen negatives as they are, and the triplet loss with the same kind of negatives.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np

import tfdml

MARGIN = 0.2


def main() -> None:
    arguments = parse_arguments()

    # 1. Small images, and classes to be judged on that are not trained on.
    data = tfdml.datasets.first_available(*arguments.data.split(","), image_size=28)
    data.summary()
    train, unseen = data.split_by_class(test=0.4, seed=0)
    train, unseen = train.in_memory(), unseen.in_memory()

    # 2. The triplet loss with a random negative for every pair: what DAML stands on. And with the negatives that DAML chooses.
    plain = tfdml.losses.TripletLoss(MARGIN, mining="random")
    chosen = tfdml.losses.TripletLoss(MARGIN, mining=arguments.mining)
    runs = {
        "triplet, random negatives": (plain, None),
        f"triplet, {arguments.mining} negatives": (chosen, None),
        "DAML, generator at rest": (plain, 0.0),
        "DAML": (plain, 1e-3),
    }
    if arguments.mining == "random":
        del runs[f"triplet, {arguments.mining} negatives"]

    # 3. The same encoder, batches and number of steps for each. DAML spends some of its steps on the generator alone.
    figures: dict[str, list[float]] = {name: [] for name in runs}
    harder: dict[str, float] = {}
    for seed in arguments.seeds:
        for name, (loss, generator_rate) in runs.items():
            keras.utils.set_random_seed(seed)
            encoder = tfdml.models.conv_encoder(train.load(0).shape, arguments.filters, 64, pooling="flatten")
            optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, arguments.steps))
            if generator_rate is None:
                model = tfdml.EmbeddingModel(encoder)
                model.compile(optimizer, loss=loss)
            else:
                # 4. The generator is a part of the model; its weights are not part of what is exported.
                model = tfdml.models.DAML(
                    encoder,
                    pretrain_steps=arguments.steps // 4,
                    generator_steps=arguments.steps // 20,
                    mining=arguments.mining,
                    regular_weight=arguments.regular,
                    adversarial_weight=arguments.adversarial,
                )
                model.compile(optimizer, loss=loss, generator_optimizer=keras.optimizers.Adam(generator_rate))
            sampler = tfdml.samplers.PKSampler(train.labels, arguments.classes, 4, seed=seed)
            batches = sampler.dataset(train.load)
            history = model.fit(batches, steps_per_epoch=arguments.steps, epochs=1, shuffle=False, verbose=0).history
            result = model.evaluate(unseen, ks=(1,))
            figures[name].append(result["map_at_r"])
            terms = {key: f"{history[key][0]:.3f}" for key in ("j_m", "j_hard", "j_reg", "j_adv") if key in history}
            print(f"seed {seed}, {name}: Recall@1 {result['recall_at_1']:.1%}, MAP@R {result['map_at_r']:.1%}", terms or "")
            if "harder_negatives" in history:
                harder[name] = history["harder_negatives"][0]

    # 5. The claim: MAP@R on unseen classes, mean over the seeds and its spread.
    print(f"\nMAP@R on {unseen.num_classes} unseen classes after {arguments.steps} steps, {len(arguments.seeds)} seed(s):")
    for name, values in figures.items():
        share = f"   harder synthetic negatives {harder[name]:.1%}" if name in harder else ""
        print(f"{name:>30}  {np.mean(values):.1%}  ({min(values):.1%} to {max(values):.1%}){share}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="omniglot,rendered_catalogue", help="names of data sets (%(default)s)")
    parser.add_argument("--steps", type=int, default=500, help="training steps of each model (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of weights and batches (%(default)s)")
    parser.add_argument("--mining", default="semi_hard", help="negatives given to the generator (%(default)s)")
    parser.add_argument("--regular", type=float, default=10.0, help="lambda_1, the weight of J_reg (%(default)s)")
    parser.add_argument("--adversarial", type=float, default=1.0, help="lambda_2, the weight of J_adv (%(default)s)")
    parser.add_argument("--classes", type=int, default=32, help="classes in a batch, of 4 images each (%(default)s)")
    parser.add_argument("--filters", type=int, nargs="+", default=[64, 64, 64, 64], help="of the encoder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
