"""What will you think of a film, and which one next? MovieLens: 100,836 ratings by 610 people.

    minidl data fetch movielens
    python examples/movielens.py             # 5-fold cross-validation of predicted stars
    python examples/movielens.py --rank      # lists of films: BPR against the most popular ones
    python examples/movielens.py --quick     # both, on a part of the data, in seconds

A rating is taken to be mean + bias of the user + bias of the film + user . film; biases and vectors
are learned (Koren, Bell and Volinsky, Computer 42(8), 2009). Lists are learned from pairs: a film
that somebody liked should score higher than one that he or she has not rated (BPR: Rendle et al.,
UAI 2009).
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

import minidl
from minidl import Tensor, data, nn, no_grad, optim, tune
from minidl.data import DataLoader, Ratings
from minidl.metrics import ndcg_at_k, recall_at_k
from minidl.nn import functional as F

# Found on a tenth of the training part of the first fold, by hand and as --tune searches.
STARS = {"rank": 32, "decay": 0.14, "decay_bias": 0.005, "lr": 1e-2, "epochs": 20}
NEUMF = {"rank": 4, "decay": 0.04, "decay_bias": 0.014, "lr": 6e-3, "epochs": 6}
LISTS = {"rank": 32, "decay": 0.02, "decay_bias": 0.0, "lr": 5e-3, "epochs": 20}
STEPS = 40  # of an epoch
LIKED = 4.0  # stars from which a film belongs on a list


class Factors(nn.Module):
    """Scores of pairs of users (N,) and items (N,), and the price of what they are made from.

    A row is charged for each rating that it takes part in: who has rated more may differ more.
    """

    def __init__(self, users: int, items: int, rank: int, decay: float, decay_bias: float):
        self.decay, self.decay_bias = decay, decay_bias
        self.user, self.item = nn.Embedding(users, rank), nn.Embedding(items, rank)
        self.user_bias, self.item_bias = nn.Embedding(users, 1), nn.Embedding(items, 1)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.1)
        for table in (self.user_bias, self.item_bias):
            nn.init.zeros_(table.weight)

    def forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """users, items (N,), counted from 0 -> scores (N,), price ()."""
        p, q = self.user(users), self.item(items)
        b, c = self.user_bias(users)[:, 0], self.item_bias(items)[:, 0]
        price = self.decay * (p * p + q * q).sum(1) + self.decay_bias * (b * b + c * c)
        return b + c + self.together(p, q), price.mean()

    def together(self, p: Tensor, q: Tensor) -> Tensor:
        """What vectors of users and items (N, rank) say together: their product."""
        return (p * q).sum(1)


class NeuMF(Factors):
    """The same with a network beside the product (He et al., WWW 2017)."""

    def __init__(self, users: int, items: int, rank: int, decay: float, decay_bias: float):
        super().__init__(users, items, rank, decay, decay_bias)
        self.tower = nn.Sequential(nn.Linear(2 * rank, rank), nn.ReLU(), nn.Linear(rank, 1))

    def together(self, p: Tensor, q: Tensor) -> Tensor:
        """The product, and what the network makes of both."""
        return (p * q).sum(1) + self.tower(minidl.cat([p, q], axis=1))[:, 0]


MODELS = {"factors": (Factors, STARS), "neumf": (NeuMF, NEUMF)}


def batch(samples: int) -> int:
    """How many make a batch."""
    return max(1, samples // STEPS)


def descend(
    model: nn.Module, loss: Callable[..., Tensor],
    batches: Callable[[int], Iterable[tuple[Tensor, ...]]], lr: float, epochs: int, steps: int,
) -> None:  # fmt: skip
    """Make loss(*columns) small over so many epochs of `steps` batches each."""
    optimizer = optim.Adam(model.parameters(), lr=lr)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, lr, epochs * steps)

    @minidl.capture
    def step(*columns: Tensor) -> Tensor:
        optimizer.zero_grad()
        value = loss(*columns)
        value.backward()
        optimizer.step()
        return value

    for epoch in range(epochs):
        for columns in batches(epoch):
            step(*columns)
            schedule.step()


# Stars


def learn_stars(
    train: Ratings, kind: type[Factors] = Factors, *, lr: float, epochs: int, **settings: float
) -> Callable[[Ratings], np.ndarray]:
    """Fit ratings, and return what predicts others: stars (N,), from half a star to five."""
    model = kind(train.n_users, train.n_items, **settings)
    mean = float(train.ratings.mean())
    columns = (train.users, train.items, train.ratings - np.float32(mean))
    loader = DataLoader(columns, batch(len(train)), shuffle=True, drop_last=True)

    def loss(users: Tensor, items: Tensor, stars: Tensor) -> Tensor:
        guess, price = model(users, items)
        return F.mse_loss(guess, stars) + price

    descend(model, loss, lambda epoch: loader, lr, epochs, len(loader))

    def predict(asked: Ratings) -> np.ndarray:
        with no_grad():
            guess, _ = model(minidl.tensor(asked.users), minidl.tensor(asked.items))
        return np.clip(mean + guess.numpy(), 0.5, 5.0)

    return predict


def rmse(guess: np.ndarray, right: np.ndarray) -> float:
    """The root of the mean squared error, in stars."""
    return float(np.sqrt(np.mean((guess - right) ** 2)))


def folds(ratings: Ratings, count: int, seed: int) -> list[tuple[Ratings, Ratings]]:
    """Training and test parts: each rating is in one test part."""
    parts = np.array_split(np.random.default_rng(seed).permutation(len(ratings)), count)
    rest = (np.concatenate(parts[:i] + parts[i + 1 :]) for i in range(count))
    return [(ratings[other], ratings[part]) for other, part in zip(rest, parts, strict=True)]


def cross_validate(ratings: Ratings, name: str, count: int, seed: int) -> dict:
    """RMSE of each test part."""
    (kind, settings), found, start = MODELS[name], [], time.perf_counter()
    for i, (train, test) in enumerate(folds(ratings, count, seed), 1):
        minidl.manual_seed(seed)
        found.append(rmse(learn_stars(train, kind, **settings)(test), test.ratings))
        plain = rmse(train.ratings.mean(), test.ratings)
        print(f"fold {i}: RMSE {found[-1]:.4f} (the mean rating alone: {plain:.4f})", flush=True)
    print(f"{name}, {count} folds: RMSE {np.mean(found):.4f} +- {np.std(found):.4f}")
    return {"rmse": found, "mean": float(np.mean(found)), "seconds": time.perf_counter() - start}


def search(ratings: Ratings, name: str, out: Path, seed: int) -> None:
    """Look for settings in the training part of the first fold, a tenth of which tells."""
    train, check = folds(folds(ratings, 5, seed)[0][0], 10, seed)[0]
    space = {
        "rank": [4, 8, 16, 32], "decay": tune.log_uniform(0.003, 0.3), "epochs": [6, 10, 20],
        "decay_bias": tune.log_uniform(0.002, 0.05), "lr": tune.log_uniform(2e-3, 2e-2),
    }  # fmt: skip
    found = tune.random_search(
        lambda **s: rmse(learn_stars(train, MODELS[name][0], **s)(check), check.ratings),
        space, trials=16, seed=seed, path=out / f"tune-{name}.jsonl",
    )  # fmt: skip
    print(found)


# Lists


def learn_lists(train: Ratings, *, lr: float, epochs: int, seed: int, **settings: float) -> Factors:
    """Fit what people liked, against films drawn at random that they have not rated."""
    model = Factors(train.n_users, train.n_items, **settings)
    rated = np.zeros((train.n_users, train.n_items), bool)
    rated[train.users, train.items] = True
    liked = train[train.ratings >= LIKED]
    size = batch(len(liked))

    def batches(epoch: int) -> DataLoader:
        drawn = np.random.default_rng((seed, epoch)).integers(train.n_items, size=(2, len(liked)))
        other = np.where(rated[liked.users, drawn[0]], drawn[1], drawn[0])
        columns = (liked.users, liked.items, other)
        return DataLoader(columns, size, shuffle=True, drop_last=True, seed=seed + epoch)

    def loss(users: Tensor, better: Tensor, worse: Tensor) -> Tensor:
        (high, price), (low, price_too) = model(users, better), model(users, worse)
        return bpr(high, low) + price + price_too

    descend(model, loss, batches, lr, epochs, len(batches(0)))
    return model


def bpr(better: Tensor, worse: Tensor) -> Tensor:
    """Bayesian personalised ranking: the mean of -log sigmoid(better - worse), scores (N,)."""
    return F.softplus(worse - better).mean()


def scores(model: Factors) -> np.ndarray:
    """Of every user and film (users, items)."""
    user, item = model.user.weight.detach().numpy(), model.item.weight.detach().numpy()
    return user @ item.T + model.item_bias.weight.detach().numpy()[:, 0]


def compare_lists(ratings: Ratings, seed: int) -> dict:
    """recall@10 and NDCG@10 of films liked in the test part, among all that are not in training."""
    train, test = folds(ratings, 5, seed)[0]
    minidl.manual_seed(seed)
    model = learn_lists(train, seed=seed, **LISTS)
    liked = train.ratings >= LIKED
    popular = np.bincount(train.items[liked], minlength=train.n_items).astype(float)
    wanted = np.zeros((train.n_users, train.n_items), bool)
    wanted[test.users, test.items] = test.ratings >= LIKED
    found, measures = {}, (recall_at_k(10), ndcg_at_k(10))
    lists = {"BPR": scores(model), "most popular": np.tile(popular, (len(wanted), 1))}
    for name, score in lists.items():
        score[train.users, train.items] = -np.inf
        values = {measure.__name__: measure(score, wanted) for measure in measures}
        print(f"{name:13}" + "".join(f"  {key} {value:.4f}" for key, value in values.items()))
        found[name] = values
    return found


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rank", action="store_true", help="lists instead of stars")
    parser.add_argument("--tune", action="store_true", help="look for good settings")
    parser.add_argument("--model", choices=MODELS, default="factors")
    parser.add_argument("--quick", action="store_true", help="150 people, two folds, and lists")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/movielens"))
    asked = parser.parse_args()
    ratings = data.movielens()
    if asked.quick:
        ratings = ratings[ratings.users < 150]
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.tune:
        search(ratings, asked.model, asked.out, asked.seed)
        return
    found = {"seed": asked.seed}
    if asked.quick or not asked.rank:
        found["stars"] = cross_validate(ratings, asked.model, 2 if asked.quick else 5, asked.seed)
    if asked.quick or asked.rank:
        found["lists"] = compare_lists(ratings, asked.seed)
    (asked.out / "result.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
