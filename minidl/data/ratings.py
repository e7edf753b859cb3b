"""MovieLens: what people think of films, one to five stars."""

import csv
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from .catalog import FILES, PACKED, find, read
from .sets import Folder, load


@dataclass(frozen=True)
class Ratings:
    """User users[i] gave film items[i] ratings[i] stars, at timestamps[i] (seconds since 1970).

    users, items: int64 (N,), counted from 0; ratings float32 (N,). movie_ids[items[i]] is the
    film's number in the files, titles[items[i]] its name. A loader of it is
    `DataLoader((r.users, r.items, r.ratings))`; `r[array]` is some of the ratings.
    """

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    timestamps: np.ndarray
    movie_ids: np.ndarray
    n_users: int
    titles: tuple[str, ...]

    @property
    def n_items(self) -> int:
        """Number of films, rated in this part or not."""
        return len(self.movie_ids)

    def __len__(self) -> int:
        return len(self.ratings)

    def __getitem__(self, key: Any) -> "Ratings":
        rows = self.users[key], self.items[key], self.ratings[key], self.timestamps[key]
        return Ratings(*rows, self.movie_ids, self.n_users, self.titles)

    def __repr__(self) -> str:
        return f"Ratings({len(self):,} of {self.n_users} users, {self.n_items} films)"


def movielens(*, root: Folder = None, download: bool = False) -> Ratings:
    """Load MovieLens ml-latest-small (2018): 100,836 ratings of 9,724 films by 610 people.

    root: a folder with ratings.csv and movies.csv, as the official archive has them; ratings.npz
    does as well, without titles (then they are "film 193609"). For research, not for commerce;
    who publishes cites Harper and Konstan, "The MovieLens Datasets", ACM TiiS 5(4), 2015.
    """
    official, packed = FILES["movielens"]["all"], PACKED["movielens"][0]
    if find("movielens", official[0], root) is None and find("movielens", packed, root):
        with np.load(io.BytesIO(read("movielens", packed, root)), allow_pickle=False) as file:
            users, films, stars, when = (file[k] for k in ("user", "item", "rating", "timestamp"))
            movie_ids, names = file["movie_id"].astype(np.int64), {}
    else:
        table, listed = (data.decode() for data in load("movielens", "all", root, download))
        rows = np.array(list(csv.reader(io.StringIO(table)))[1:], np.float64)
        movie_ids, films = np.unique(rows[:, 1].astype(np.int64), return_inverse=True)
        users, stars, when = rows[:, 0] - 1, rows[:, 2], rows[:, 3]
        names = {int(row[0]): row[1] for row in list(csv.reader(io.StringIO(listed)))[1:]}
    return Ratings(
        users.astype(np.int64),
        films.astype(np.int64),
        stars.astype(np.float32),
        when.astype(np.int64),
        movie_ids,
        int(users.max()) + 1,
        tuple(names.get(number, f"film {number}") for number in movie_ids.tolist()),
    )
