"""From a finished task to files, in whole runs: what was paid for is saved, named and never lost."""

import base64
import itertools
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
import trustme
from aftermath import pictures_in, records_in, run_next
from faulty import (
    HTML,
    ConnectProxy,
    Service,
    completed,
    cut,
    drip,
    failed,
    hang,
    ok,
    page,
    pending,
    picture,
    redirect,
    reset,
    sync_completed,
)
from image2_cli.pictures import download
from pictures import jpeg, png
from platforms import needs_linux, needs_open_files_to_go, needs_posix

PNG = png(64, 64)
B64 = base64.b64encode(PNG).decode()
QUICK = ("--poll-interval", "0.05", "--timeout", "20")


@pytest.mark.parametrize("fault", [cut(picture(PNG).but(content_length=None), -1), reset(picture(PNG), -5), picture(b""),
                                   page(200).but(headers={"Content-Type": "image/png"})],
                         ids=["cut without a length", "a reset in the body", "nothing", "HTML called image/png"])
def test_a_failed_download_keeps_the_url_and_next_fetches_it_for_nothing(service, run, project, fault):
    service.on_file(*[fault] * 3, picture(PNG))
    done = run("generate", "a cat", "--out", "out", *QUICK)
    (image,) = done.json["images"]
    assert (10, "not_saved", "yes", None) == (done.exit, done.json["error"]["code"], done.json["charged"], image["path"])
    assert ("not_saved", service.base_url + "/generations/task-1-0.png") == (image["error"]["code"], image["url"])
    assert [] == pictures_in(project / "out")
    again = run_next(done.json, service, project).json
    assert (True, "task-1", None) == (again["ok"], again["task_id"], again["next"])
    assert [str(project / "out" / "a-cat.png")] == [image["path"] for image in again["images"]]
    assert (1, ["a-cat.png"]) == (service.orders, pictures_in(project / "out"))


@pytest.mark.parametrize("verb", [("wait",), ("generate", "a cat")], ids=["wait", "the same command"])
def test_what_was_not_saved_is_unfinished_and_never_paid_again(service, run, project, verb):
    service.on_file(page(410))
    assert 10 == run("generate", "a cat", "--out", "out", *QUICK).exit
    service.on_file(picture(PNG))
    done = run(*verb, "--out", "out", *QUICK)
    assert (0, "task-1", True) == (done.exit, done.json["task_id"], done.json["resumed"])
    assert (1, ["a-cat.png"]) == (service.orders, pictures_in(project / "out"))


def test_of_several_pictures_only_the_missing_one_is_fetched_again(service, run, project):
    broken = threading.Event()

    def file(request):
        return page(200) if "-1.png" in request.path and not broken.is_set() else picture(PNG)

    service.on_file(file)
    done = run("generate", "a cat", "--n", "4", "--out", "out", *QUICK)
    assert (10, 4) == (done.exit, len(done.json["images"]))
    assert [True, False, True, True] == [bool(image["path"]) for image in done.json["images"]]
    assert ["a-cat-3.png", "a-cat-4.png", "a-cat.png"] == pictures_in(project / "out")
    assert "1 of 4" in done.json["error"]["message"]
    times = {path: os.stat(path).st_mtime_ns for path in (project / "out").glob("*.png")}
    broken.set()
    before = len(service.files)
    again = run_next(done.json, service, project).json
    assert (True, 1) == (again["ok"], len(service.files) - before)
    assert ["a-cat-2.png", "a-cat-3.png", "a-cat-4.png", "a-cat.png"] == pictures_in(project / "out")
    assert times == {path: os.stat(path).st_mtime_ns for path in times}
    assert [0, 1, 2, 3] == [image["index"] for image in again["images"]]
    assert 1 == service.orders


@pytest.mark.parametrize("status", [403, 410])
def test_an_expired_link_is_asked_for_anew_once(service, run, project, status):
    fresh = [service.base_url + "/generations/fresh-0.png"]
    service.on_poll(completed(), completed(urls=fresh))
    service.on_file(page(status), picture(PNG))
    done = run("generate", "a cat", "--out", "out", *QUICK)
    assert (0, 2, 2) == (done.exit, len(service.polls), len(service.files))
    assert fresh == [image["url"] for image in done.json["images"]]
    assert ["a-cat.png"] == pictures_in(project / "out")


def test_a_link_that_stays_expired_is_asked_for_anew_only_once(service, run, project):
    service.on_file(page(410))
    done = run("generate", "a cat", "--out", "out", *QUICK)
    assert (10, 2, 2) == (done.exit, len(service.polls), len(service.files))
    assert [] == pictures_in(project / "out")
    assert done.json["images"][0]["url"] and done.json["next"]


def test_asking_for_a_fresh_link_ends_with_the_time(service, run, project):
    service.on_poll(completed(), hang(30))
    service.on_file(page(403))
    done = run("generate", "a cat", "--out", "out", "--poll-interval", "0.05", "--timeout", "2")
    assert 10 == done.exit
    assert done.seconds < 2 + 5
    assert [] == pictures_in(project / "out")


@pytest.mark.parametrize("answer", [hang(30, picture(PNG), -5), drip(picture(PNG), 1, 0.1)], ids=["a stall", "a drip"])
def test_a_stalled_or_dripping_download_ends_with_the_time_and_is_kept(service, run, project, answer):
    service.on_file(answer)
    done = run("generate", "a cat", "--out", "out", "--poll-interval", "0.05", "--timeout", "1")
    assert (10, "yes") == (done.exit, done.json["charged"])
    assert done.seconds < 1 + 5
    assert done.json["next"]
    assert [] == pictures_in(project / "out")


def test_a_jpeg_that_was_asked_for_as_png_is_called_jpg_and_said_so(service, run, project):
    service.on_file(picture(jpeg()))
    done = run("generate", "a cat", "--out", "cat.png", *QUICK)
    assert (0, str(project / "cat.jpg")) == (done.exit, done.json["images"][0]["path"])
    assert any("jpeg" in warning for warning in done.json["warnings"])
    assert jpeg() == (project / "cat.jpg").read_bytes()


@pytest.mark.parametrize("name", ["cat.jpeg", "cat.JPG", "cat.jpg"])
def test_the_users_own_spelling_of_an_extension_is_kept_where_it_is_right(service, run, project, name):
    service.on_file(picture(jpeg()))
    service.on_poll(pending(), completed())
    first = run("generate", "a cat", "--out", name, *QUICK, "--timeout", "0.1")
    done = run_next(first.json, service, project)  # which knows only the folder
    assert (8, str(project / name), None) == (first.exit, done.json["images"][0]["path"], done.json.get("warnings"))


@pytest.mark.parametrize("url", ["/generations/..%2f..%2fevil-0.png", "/generations/evil.sh-0.png?name=../../x.sh"])
def test_no_name_comes_from_the_service(service, run, project, url):
    service.on_poll(completed(urls=[service.base_url + url]))
    service.on_file(picture(PNG).but(headers={"Content-Disposition": 'attachment; filename="../../evil.sh"'}))
    done = run("generate", "a cat", "--out", "out", *QUICK)
    assert (0, ["a-cat.png"]) == (done.exit, pictures_in(project / "out"))


@needs_posix
def test_a_taken_name_is_numbered_and_nothing_is_replaced(service, run, project):
    (project / "cat.png").write_bytes(b"mine")
    (project / "cat-2.png").symlink_to(project / "nowhere")
    done = run("generate", "a cat", "--out", "cat.png", *QUICK)
    assert str(project / "cat-3.png") == done.json["images"][0]["path"]
    assert (b"mine", False) == ((project / "cat.png").read_bytes(), (project / "nowhere").exists())


def test_a_name_taken_while_the_picture_was_made_is_not_replaced(service, run, project):
    def late(request):
        (project / "cat.png").write_bytes(b"mine")
        return picture(PNG)

    service.on_file(late)
    done = run("generate", "a cat", "--out", "cat.png", *QUICK)
    assert str(project / "cat-2.png") == done.json["images"][0]["path"]
    assert (b"mine", PNG) == ((project / "cat.png").read_bytes(), (project / "cat-2.png").read_bytes())


@needs_posix
def test_overwrite_replaces_what_is_there_and_not_what_a_link_leads_to(service, run, project):
    (project / "precious").write_text("kept")
    (project / "cat.png").symlink_to(project / "precious")
    (project / "cat-2.png").write_bytes(b"old")
    done = run("generate", "a cat", "--n", "2", "--out", "cat.png", "--overwrite", *QUICK)
    assert [str(project / "cat.png"), str(project / "cat-2.png")] == [image["path"] for image in done.json["images"]]
    assert "kept" == (project / "precious").read_text()
    assert not (project / "cat.png").is_symlink()
    assert (project / "cat-2.png").read_bytes().startswith(b"\x89PNG")


def test_overwrite_still_holds_in_the_command_that_goes_on(service, run, project):
    (project / "cat.png").write_bytes(b"old")
    service.on_file(*[page(200)] * 3, picture(PNG))
    done = run("generate", "a cat", "--out", "cat.png", "--overwrite", *QUICK)
    assert (10, b"old") == (done.exit, (project / "cat.png").read_bytes())
    again = run_next(done.json, service, project).json
    assert [str(project / "cat.png")] == [image["path"] for image in again["images"]]
    assert PNG == (project / "cat.png").read_bytes()


def test_overwrite_means_what_stood_there_and_no_picture_that_was_paid_for_since(service, run, project):
    service.on_poll(pending(), completed())
    assert 8 == run("generate", "a cat", "--out", "fox.png", "--overwrite", *QUICK, "--timeout", "0.1").exit
    assert 0 == run("generate", "a dog", "--out", "fox.png", *QUICK).exit
    assert 0 == run("wait", "--out", ".", *QUICK).exit
    assert ["fox-2.png", "fox.png"] == pictures_in(project)


@needs_posix
def test_a_folder_that_is_a_link_is_used_and_stays_one(service, run, project):
    (project / "real").mkdir()
    (project / "out").symlink_to(project / "real")
    done = run("generate", "a cat", "--out", "out", *QUICK)
    assert (0, ["a-cat.png"]) == (done.exit, pictures_in(project / "real"))
    assert (project / "out").is_symlink()
    assert str(project / "out" / "a-cat.png") == done.json["images"][0]["path"]


@needs_posix
def test_a_name_that_is_too_long_for_the_disk_is_found_before_paying(service, run, project):
    done = run("generate", "a cat", "--out", "c" * 253 + ".png", *QUICK)
    assert (2, "output_not_writable", 0) == (done.exit, done.json["error"]["code"], len(service.posts))


@needs_open_files_to_go
def test_the_folder_may_vanish_while_the_picture_is_made_and_nothing_is_lost(service, run, project):
    def vanish(request):
        subprocess.run(["rm", "-rf", project / "out"], check=True)
        return completed()

    service.on_poll(vanish)
    done = run("generate", "a cat", "--out", "out", *QUICK)
    assert (10, "yes", "task-1") == (done.exit, done.json["charged"], done.json["task_id"])
    again = run_next(done.json, service, project).json
    assert (True, 1) == (again["ok"], service.orders)


@pytest.mark.parametrize("field", ["b64_json", "url"])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_pictures_inside_the_answer_are_saved(service, run, project, field, way):
    item = {field: B64 if field == "b64_json" else "data:image/png;base64," + B64}
    service.on_post(sync_completed(data=[item, item]) if way == "sync" else ok())
    service.on_poll(pending(10), completed(data=[item, item]))
    done = run("generate", "a cat", "--n", "2", "--out", "out", *QUICK, *(["--sync"] if way == "sync" else []))
    assert (0, ["a-cat-2.png", "a-cat.png"]) == (done.exit, pictures_in(project / "out"))
    assert B64[:40] not in done.stdout + done.stderr
    for path in (project / "out" / ".image2").iterdir():
        assert B64[:40] not in path.read_text(), path


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("text", [B64[:-40], "!!!", base64.b64encode(HTML.encode()).decode()],
                         ids=["cut", "junk", "a page"])
def test_broken_pictures_inside_the_answer_are_refused_and_said_so(service, run, project, way, text):
    items = [{"b64_json": text}, {"b64_json": B64}]
    service.on_post(sync_completed(data=items) if way == "sync" else ok())
    service.on_poll(completed(data=items))
    done = run("generate", "a cat", "--n", "2", "--out", "out", *QUICK, *(["--sync"] if way == "sync" else []))
    assert (10, "yes") == (done.exit, done.json["charged"])
    assert [False, True] == [bool(image["path"]) for image in done.json["images"]]
    assert ["a-cat-2.png"] == pictures_in(project / "out")
    assert done.json["next"]


def test_a_picture_inside_the_answer_may_be_too_large(service, run, project):
    service.on_poll(completed(data=[{"b64_json": "A" * (download.MAX_BYTES // 3 * 4 + 8)}]))
    done = run("generate", "a cat", "--out", "out", *QUICK)
    assert (10, "yes", []) == (done.exit, done.json["charged"], pictures_in(project / "out"))
    assert "larger than 64 MB" in done.json["images"][0]["error"]["message"]


@pytest.mark.parametrize("data", [[{"url": "http://me:pw@127.0.0.1/a.png"}], [{"url": "ftp://127.0.0.1/a.png"}],
                                  [{"url": "file:///etc/hostname"}], [{"url": "https://"}]])
def test_a_link_that_must_not_be_asked_is_not_asked(service, run, project, data):
    service.on_poll(completed(data=data))
    done = run("generate", "a cat", "--out", "out", *QUICK)
    assert (10, "not_saved") == (done.exit, done.json["error"]["code"])
    assert [] == service.files + pictures_in(project / "out")


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.mark.parametrize("target", [
    "https://127.0.0.1/a.png", "https://2130706433/a.png", "https://[::1]/a.png", "https://169.254.169.254/a.png",
    "http://image2.test/a.png", "https://me:pw@image2.test/a.png", None,
])
def test_a_public_service_cannot_lead_a_download_inside_or_down_to_http(authority, run, project, tmp_path, target):
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("image2.test").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (project / ".netrc").write_text("default login me password canary-login\n")
    with Service(context, "https://image2.test") as service, ConnectProxy(service.address) as proxy:
        service.on_file(*([redirect(302, target)] if target else []), picture(PNG))
        env = {"HTTPS_PROXY": proxy.url, "REQUESTS_CA_BUNDLE": tmp_path / "ca.pem", "HOME": project}
        done = run("generate", "a cat", "--out", "out", *QUICK, env=env, base_url=service.base_url)
        assert {"image2.test:443"} == set(proxy.connects)
        assert 1 == len(service.files)
        assert "authorization" not in service.files[0].headers
        if target is None:
            assert (0, ["a-cat.png"]) == (done.exit, pictures_in(project / "out"))
        else:
            assert (10, []) == (done.exit, pictures_in(project / "out"))


def test_a_login_in_netrc_never_travels_with_a_download(service, run, project):
    (project / ".netrc").write_text("machine 127.0.0.1 login me password canary-login\n")
    service.on_file(redirect(302, "/b-0.png"), picture(PNG))
    done = run("generate", "a cat", "--out", "out", *QUICK, env={"HOME": project})
    assert 0 == done.exit
    assert [False, False] == ["authorization" in request.headers for request in service.files]


# --- the machine's limits


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own with room for one picture of 16 MB, and little more."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@needs_linux
def test_a_disk_that_fills_up_loses_nothing_that_was_paid_for(service, run, project, small_disk):
    service.on_file(picture(png(64, 64, noise_bytes=24 << 20)))
    done = run("generate", "a cat", "--out", small_disk, *QUICK)
    assert (10, "yes", 1) == (done.exit, done.json["charged"], len(service.files))
    assert "No space" in done.json["images"][0]["error"]["message"]
    assert [] == pictures_in(small_disk)
    assert done.json["next"]
    service.on_file(picture(PNG))
    again = run_next(done.json, service, project).json
    assert (True, 1, ["a-cat.png"]) == (again["ok"], service.orders, pictures_in(small_disk))


@needs_linux
def test_a_disk_that_was_full_before_is_found_before_paying(service, run, small_disk):
    with open(small_disk / "mine", "wb") as file:
        file.write(bytes(12 << 20))
    done = run("generate", "a cat", "--out", small_disk, *QUICK)
    assert (2, "output_not_writable", 0) == (done.exit, done.json["error"]["code"], len(service.posts))


@pytest.fixture
def fill(small_disk):
    """Take the last byte of it."""
    def bound():
        with open(small_disk / ".filler", "wb", buffering=0) as file:
            for size in (1 << 20, 4096):
                while True:
                    try:
                        file.write(bytes(size))
                    except OSError:
                        break

    return bound


@needs_linux
@pytest.mark.parametrize("verb", ["generate", "batch"])
def test_a_disk_that_is_full_when_the_order_is_accepted_still_keeps_its_task(service, run, small_disk, project, fill, verb):
    """A batch tells no task ids: what was in no record was lost."""
    service.on_post(lambda request: fill() or ok())
    (project / "orders.txt").write_text("a cat\n")
    done = run(verb, "a cat" if verb == "generate" else "orders.txt", "--out", small_disk, *QUICK)
    assert (10, "yes") == (done.exit, done.json["charged"])
    assert ["task-1"] == [record["task_id"] for record in records_in(small_disk)]
    (small_disk / ".filler").unlink()
    assert 0 == run("wait", "--out", small_disk, *QUICK).exit
    assert 1 == service.orders and any(name.endswith("cat.png") for name in pictures_in(small_disk))


@needs_linux
def test_a_disk_full_to_the_last_byte_still_ends_with_the_task_and_its_link(service, run, small_disk, project, fill):
    service.on_poll(lambda request: fill() or completed(), completed())
    done = run("generate", "a cat", "--n", "1", "--out", small_disk, *QUICK)
    assert (10, "task-1", "yes") == (done.exit, done.json["task_id"], done.json["charged"])
    assert done.json["images"][0]["url"]
    (small_disk / ".filler").unlink()
    again = run_next(done.json, service, project).json
    assert again["ok"], again
    assert (["a-cat.png"], 1) == (pictures_in(small_disk), service.orders)


@needs_posix
def test_a_limit_on_file_sizes_is_a_clear_error_and_loses_nothing(service, run, project):
    import resource

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    service.on_file(picture(png(64, 64, noise_bytes=2 << 20)))
    done = run("generate", "a cat", "--out", "out", *QUICK, preexec_fn=limit)
    assert (10, 1) == (done.exit, len(service.files))
    assert "disk refused" in done.json["images"][0]["error"]["message"]
    assert [] == pictures_in(project / "out")
    assert (True, ["a-cat.png"]) == (run_next(done.json, service, project).json["ok"], pictures_in(project / "out"))


@needs_linux
def test_memory_stays_flat_whatever_the_size_of_a_picture(service, start, project):
    """60 MB within 45 MB resident; read while the second picture is held back, so that the first is all done."""
    big, release = png(64, 64, noise_bytes=60_000_000), threading.Event()

    def file(request):
        if "-1.png" in request.path:
            release.wait(30)
            return picture(PNG)
        return picture(big)

    service.on_file(file)
    busy = start("generate", "a cat", "--n", "2", "--out", "out", *QUICK)
    end = time.monotonic() + 30
    while not (project / "out" / "a-cat.png").exists() and time.monotonic() < end:
        time.sleep(0.02)
    peak = Path("/proc/%d/status" % busy.pid).read_text()
    release.set()
    assert 0 == busy.finish().exit
    peak_mb = int(peak.partition("VmHWM:")[2].split()[0]) / 1024
    print("peak of resident memory: %.1f MB" % peak_mb)
    assert len(big) == (project / "out" / "a-cat.png").stat().st_size
    assert peak_mb <= 45


def test_four_downloads_run_at_once(service, run, project):
    together = threading.Barrier(4, timeout=10)

    def file(request):
        together.wait()
        return picture(PNG)

    service.on_file(file)
    assert 0 == run("generate", "a cat", "--n", "8", "--out", "out", *QUICK).exit
    assert 8 == len(pictures_in(project / "out"))


def test_a_run_that_ends_before_its_downloads_leaves_no_part(service, run, project):
    """Each download is caught at another moment: before it is answered, in its head, in its body, in a pause."""
    moments = itertools.cycle([picture(PNG).but(delay=30), hang(30, picture(PNG), 20), hang(30, picture(PNG), -5),
                               page(500)])
    service.on_file(lambda request: next(moments))
    done = run("generate", "a cat", "--n", "4", "--out", "out", "--poll-interval", "0.05", "--timeout", "0.5")
    assert (10, [None] * 4) == (done.exit, [image["path"] for image in done.json["images"]])
    assert [] == pictures_in(project / "out")


def test_pictures_that_came_are_kept_where_others_failed_for_good(service, run, project):
    item = {"url": service.base_url + "/generations/t-0.png", "status": "completed"}
    service.on_poll(completed(data=[item, {"url": None, "status": "failed", "error": "no"}]))
    done = run("generate", "a cat", "--n", "2", "--out", "out", *QUICK)
    assert (7, ["a-cat.png"]) == (done.exit, pictures_in(project / "out"))
    service.on_poll(failed())
