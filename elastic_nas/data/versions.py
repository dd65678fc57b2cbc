"""What a server calls a shard: its images are known by that."""

from http.client import HTTPResponse

from elastic_nas.errors import DataError

MOST_TAG = 200
"""Characters of a tag that count."""


def version_of(url: str, tag: str, size: int) -> str:
    """What a shard is known by: the server's tag, or its name where there is none, and its size."""
    return f"{tag or url.rpartition('/')[2]}\0{size}"


class ChangedShard(DataError):
    """A shard behind a URL that is another one now."""


def changed_at_server(url: str) -> ChangedShard:
    """The error of a shard that is another one now than when it was indexed."""
    return ChangedShard(
        f"the shard {url} is another one at the server now than when it was indexed. What was "
        "known of it is forgotten: start again, and it is indexed anew; a run that was trained on "
        "the other one tells which of its images are missing."
    )


def check_same(response: HTTPResponse, url: str, total: int | None, version: str) -> None:
    """See that a part is of the shard that was indexed, as far as the server tells.

    Raises:
        ChangedShard: It is not.
    """
    then, size = version.rsplit("\0", 1)
    tag = tag_of(response) or url.rpartition("/")[2]
    if tag != then or (total is not None and str(total) != size):
        raise changed_at_server(url)


def tag_of(response: HTTPResponse) -> str:
    """What tells the server that a shard is still the one that was begun."""
    tag = response.headers.get("ETag", "")
    strong = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
    return str(strong)[:MOST_TAG]
