"""Shards behind URLs: fetched on demand, again after failures, within a bound."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from made_shards import Server, pixels, write_shards

from elastic_nas.data import data_file as data_file_module
from elastic_nas.data import remote, web
from elastic_nas.data.augment import Augment
from elastic_nas.data.dataset import load_dataset
from elastic_nas.data.identity import identity_of
from elastic_nas.data.order import Order
from elastic_nas.data.preprocess import Preprocess
from elastic_nas.data.remote import Cache
from elastic_nas.data.stream import TrainStream, _Batches
from elastic_nas.errors import DataError
from elastic_nas.files import user_folder


@pytest.fixture(autouse=True)
def _impatient(monkeypatch, tmp_path):
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(web, "STALLED_S", 0.3)
    monkeypatch.setattr(web, "CHUNK", 3000)
    monkeypatch.setenv("ELASTIC_NAS_HOME", str(tmp_path / "home"))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "served"
    write_shards(folder, "train", [10] * 6)
    write_shards(folder, "test", [6], first=100)
    return folder


@pytest.fixture
def server(folder):
    with Server(folder) as server:
        yield server


PLAIN = Preprocess((0.5,) * 3, (0.2,) * 3)
NAME = "train-00000.tar"


def fetched(server, bound=10**9, name=NAME):
    with Cache(bound).open(f"{server.url}/{name}") as file:
        return file.read()


def data_file(server, tmp_path, extra=""):
    path = tmp_path / "set.yaml"
    path.write_text(
        f"train: {server.url}/train-{{00000..00005}}.tar\n"
        f"test: {server.url}/test-00000.tar\n{extra}"
    )
    return str(path)


def cached():
    return sorted((user_folder() / "shards").glob("*.tar"))


def test_a_shard_is_fetched_once(server, folder):
    for _ in range(2):
        assert fetched(server) == (folder / NAME).read_bytes()
    assert server.asked == [(NAME, None)]
    assert not list((user_folder() / "shards").glob("*.part"))


@pytest.mark.parametrize("fault", [500, 503, 429, "drop", "cut", "stall"])
def test_what_may_pass_is_tried_again(server, folder, fault):
    server.faults = [fault, fault]
    assert fetched(server) == (folder / NAME).read_bytes()
    assert len(server.asked) == 3


def test_a_download_goes_on_where_it_stopped(server, folder):
    server.faults = ["cut", "stall"]
    whole = (folder / NAME).read_bytes()
    assert fetched(server) == whole
    first, second = len(whole) // 2, len(whole) // 2 + (len(whole) - len(whole) // 2) // 2
    assert server.asked[1:] == [(NAME, f"bytes={first}-"), (NAME, f"bytes={second}-")]


def test_a_download_begins_anew_where_the_file_has_changed(server, folder):
    server.faults = ["cut", "other"]
    assert fetched(server) == (folder / NAME).read_bytes()
    assert [part is None for _, part in server.asked] == [True, False]


@pytest.mark.parametrize("options", [{"ranges": False}, {"length": False}])
def test_plain_servers_will_do(folder, options):
    with Server(folder, **options) as server:
        server.faults = ["cut"] if "ranges" in options else []
        assert fetched(server) == (folder / NAME).read_bytes()


def test_what_is_refused_for_good_is_told_at_once(server):
    for fault, words in ((404, "404 Not Found"), (403, "403 Forbidden")):
        server.faults, server.asked = [fault], []
        with pytest.raises(DataError) as caught:
            fetched(server)
        for word in (f"{server.url}/{NAME}", words, "tried once", "--resume"):
            assert word in str(caught.value)
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [(503, "503"), ("cut", "got "), ("stall", "nothing came for 0.3 s"), ("drop", "closed")],
)
def test_what_does_not_pass_is_told_once(server, monkeypatch, fault, words):
    waits = []
    monkeypatch.setattr(remote, "TRIES", 4)
    monkeypatch.setattr(
        remote, "time", SimpleNamespace(sleep=waits.append, monotonic=time.monotonic)
    )
    server.faults = [fault] * 4
    with pytest.raises(DataError) as caught:
        fetched(server)
    for word in (f"{server.url}/{NAME}", words, "tried 4 times", "--resume"):
        assert word in str(caught.value), str(caught.value)
    assert waits == [0.001, 0.002, 0.004]
    assert not cached()


def test_a_server_that_is_not_there_is_told(tmp_path):
    for url in ("http://127.0.0.1:9/a.tar", "http://nowhere.invalid/a.tar"):
        with pytest.raises(DataError, match=rf"cannot fetch {url}: .*tried 6 times"):
            Cache(10**9).fetch(url)


def test_a_shard_that_stays_truncated_is_named_and_not_kept(server, folder, tmp_path):
    path = folder / NAME
    content = path.read_bytes()
    path.write_bytes(content[:3000])
    with pytest.raises(DataError, match=rf"{server.url}/{NAME}.*truncated"):
        load_dataset(data_file(server, tmp_path))
    path.write_bytes(content)
    assert len(load_dataset(data_file(server, tmp_path)).test) == 6


def test_the_least_recently_used_shards_go_first(server, folder):
    size = (folder / NAME).stat().st_size
    bound = 3 * size + 100
    for number in (0, 1, 2, 0, 3):
        fetched(server, bound, f"train-{number:05}.tar")
        time.sleep(0.01)
    assert sum(path.stat().st_size for path in cached()) <= bound
    server.asked.clear()
    for number in (0, 2, 3):
        fetched(server, bound, f"train-{number:05}.tar")
    assert not server.asked
    fetched(server, bound, "train-00001.tar")
    assert len(server.asked) == 1


def test_abandoned_parts_give_way_and_others_do_not(server, folder):
    size = (folder / NAME).stat().st_size
    fetched(server, name="train-00001.tar")
    for name in ("old", "new"):
        (user_folder() / "shards" / f"{name}.part").write_bytes(b"x" * size)
    with FileLock(user_folder() / "shards" / "new.lock"):
        fetched(server, 3 * size)
    names = {path.name for path in (user_folder() / "shards").glob("*.part")}
    assert names == {"new.part"}
    assert len(cached()) == 2


def test_a_shard_waits_for_the_room_that_others_take(server, folder, monkeypatch):
    size, waits = (folder / NAME).stat().st_size, []
    (user_folder() / "shards").mkdir(parents=True)
    (user_folder() / "shards" / "other.part").write_bytes(b"x" * size)
    lock = FileLock(user_folder() / "shards" / "other.lock")
    lock.acquire()

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            lock.release()

    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    fetched(server, size + 100)
    assert waits == [remote.ROOM_WAIT_S] * 3


def test_a_shard_larger_than_the_bound_is_refused(server):
    with pytest.raises(DataError, match="Raise cache_gb"):
        fetched(server, 1000)


def test_a_full_disk_is_told_as_such(server, monkeypatch):
    monkeypatch.setattr(Cache, "reserve", lambda self, file, size: full())

    def full():
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"cannot keep .*shards: No space left.*cache_gb"):
        fetched(server)
    assert len(server.asked) == 1
    assert not list((user_folder() / "shards").glob("*.part"))


def test_a_file_in_the_way_is_told(server, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ELASTIC_NAS_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot keep fetched shards"):
        fetched(server)


FETCH = """
import sys
from elastic_nas.data.order import Order
from elastic_nas.data.preprocess import Preprocess
from elastic_nas.data.remote import Cache
for url in sys.argv[2:]:
    with Cache(int(sys.argv[1])).open(url) as file:
        assert len(file.read()) > 1000
"""


def test_processes_and_threads_share_what_is_fetched(server, folder):
    urls = [f"{server.url}/train-{number:05}.tar" for number in range(6)]
    command = [sys.executable, "-c", FETCH, str(10**9), *urls]
    running = [subprocess.Popen(command) for _ in range(2)]
    threads = [threading.Thread(target=Cache(10**9).fetch, args=(url,)) for url in urls * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(60) for process in running] == [0, 0]
    assert set(server.whole().values()) == {1}


def test_a_data_set_of_urls_is_what_its_files_are(server, folder, tmp_path):
    local, there = load_dataset(str(folder)), load_dataset(data_file(server, tmp_path))
    assert server.whole().total() == 7
    for one, other in ((local.train, there.train), (local.test, there.test)):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.deployed(local.preprocess, 12), there_deployed(other))
    load_dataset(data_file(server, tmp_path))
    assert server.whole().total() == 7


def there_deployed(split):
    return np.stack([np.asarray(split.image(i)).transpose(2, 0, 1) for i in range(len(split))])


def test_single_images_are_fetched_alone(server, tmp_path):
    train = load_dataset(data_file(server, tmp_path)).train
    for path in cached():
        path.unlink()
    server.asked.clear()
    train.subset([0, 20, 40]).deployed(PLAIN, 12)
    assert server.whole().total() == 0
    server.faults = [503, "cut"]
    assert np.asarray(train.image(5)).any()
    server.ranges = False
    train.image(50)
    assert server.whole().total() == 1
    train.deployed(PLAIN, 12)
    assert server.whole().total() == 6


def test_a_shard_that_was_replaced_at_the_server_is_named(server, folder, tmp_path):
    train = load_dataset(data_file(server, tmp_path)).train
    for path in cached():
        path.unlink()
    content = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(content[:3000])
    for ask in (lambda: train.fetch(np.arange(10)), lambda: train.image(3)):
        with pytest.raises(DataError, match=rf"{server.url}/{NAME} is another one at the server"):
            ask()
    with pytest.raises(DataError, match="no readable tar"):
        load_dataset(data_file(server, tmp_path))
    (folder / NAME).write_bytes(content)
    assert len(load_dataset(data_file(server, tmp_path)).train) == len(train)


def test_images_behind_urls_are_known_by_tag_size_and_name(server, folder, tmp_path, capsys):
    train = load_dataset(data_file(server, tmp_path)).train
    assert "equal pictures are not looked for behind URLs" in capsys.readouterr().err
    assert not train.images.by_content
    index = train.images.indices[0]
    member = index.names()[3]
    assert index.identities[3].tobytes() == identity_of(f"{index.version}\0{member}".encode())
    assert index.version.endswith(f"\0{(folder / NAME).stat().st_size}")


def stream(train, workers=0):
    return TrainStream(train, Augment(flip=True), 12, 10, 3, workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_streams_of_urls_equal_those_of_files(server, folder, tmp_path, monkeypatch, workers):
    monkeypatch.setattr(_Batches, "fill_cache", lambda self: None)
    expected = list(stream(load_dataset(str(folder)).train).batches(0, 8))
    size = (folder / NAME).stat().st_size
    # Less than is read side by side.
    monkeypatch.setattr(data_file_module, "GIGABYTE", int(3.5 * size) * 1000)
    train = load_dataset(data_file(server, tmp_path, "cache_gb: 0.001")).train
    for (x, y), (x_2, y_2) in zip(expected, stream(train, workers).batches(0, 8), strict=True):
        assert (x == x_2).all()
        assert (y == y_2).all()


def test_shards_are_fetched_before_their_step_comes(server, tmp_path, monkeypatch):
    monkeypatch.setattr(_Batches, "fill_cache", lambda self: None)
    monkeypatch.setattr("elastic_nas.data.order.OPEN_SHARDS", 1)
    monkeypatch.setattr("elastic_nas.data.order.WINDOW", 1)
    monkeypatch.setattr("elastic_nas.data.ahead.SHARDS_AHEAD", 1)
    train = load_dataset(data_file(server, tmp_path)).train
    for path in cached():
        path.unlink()
    batches = stream(train).batches(0, 6)
    next(batches)
    of_the_first = {*Order(len(train), 10, 3, train.shards).of_step(0).indices // 10}
    limit = time.monotonic() + 10
    while len(cached()) <= len(of_the_first) and time.monotonic() < limit:
        time.sleep(0.01)
    assert len(of_the_first) < len(cached()) < 6
    batches.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_server_that_fails_in_mid_stream_ends_it_in_plain_words(
    server, tmp_path, monkeypatch, workers
):
    monkeypatch.setattr(_Batches, "fill_cache", lambda self: None)
    train = load_dataset(data_file(server, tmp_path)).train
    for path in cached():
        path.unlink()
    server.faults = [404] * 1000
    with pytest.raises(DataError, match=r"train-0000\d.tar: the server answers 404 .*--resume"):
        list(stream(train, workers).batches(0, 6))


def test_pictures_are_what_was_written(server, tmp_path):
    test = load_dataset(data_file(server, tmp_path)).test
    np.testing.assert_array_equal(np.asarray(test.image(3)), pixels(103))
    assert Path(user_folder() / "shards").is_dir()
