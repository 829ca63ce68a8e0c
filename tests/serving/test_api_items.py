"""The catalogue over HTTP: pages of items, pictures, changes; and who may change nothing."""

from __future__ import annotations

import base64
import io
from urllib.parse import quote

import pytest
from fakes import FakeHeld, FakeVersions
from image_files import encoded, good_files, picture
from PIL import Image
from service_runs import running

JPEG = good_files()["colour.jpg"]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_items_are_listed_page_by_page():
    with running() as service:
        seen, after = [], None
        for _ in range(10):
            page = service.http.get("/v1/items", params={"limit": 7, **({"after": after} if after else {})}).json()
            seen += [item["id"] for item in page["items"]]
            after = page["next"]
            if after is None:
                break
        assert sorted(seen) == sorted(f"item/{i}" for i in range(30))
        item = service.http.get("/v1/items/item/3").json()
        assert item == {"id": "item/3", "fields": {"title": "Thing 3", "price": 1.5}, "thumbnail": "/v1/thumbnails/item/3"}
        assert service.http.get("/v1/items/item%2F3?version=1").json()["thumbnail"] == "/v1/thumbnails/item/3?version=1"


def test_items_may_have_paths_for_ids_however_long():
    held, end = FakeHeld(), "/" + "a" * 3000
    held.vectors = {name + end: vector for name, vector in held.vectors.items()}
    held._fields = {name + end: fields for name, fields in held._fields.items()}
    with running(FakeVersions(held)) as service:
        first = service.http.get("/v1/items", params={"limit": 20}).json()
        second = service.http.get("/v1/items", params={"limit": 20, "after": first["next"]}).json()
        assert [item["id"] for item in first["items"] + second["items"]] == sorted(held.vectors)
        assert service.http.get(f"/v1/items/item/3{end}").json()["fields"]["title"] == "Thing 3"
        assert service.http.post("/v1/search/item", json={"id": f"item/3{end}"}).status_code == 200


def test_items_are_listed_in_a_known_order_only():
    with running() as service:
        assert service.http.get("/v1/items", params={"order": "spread"}).status_code == 200
        refused = service.http.get("/v1/items", params={"order": "price"})
        assert (refused.status_code, "order" in refused.json()["detail"]) == (400, True)


def test_what_the_document_does_not_call_an_integer_is_none():
    with running(writable=True) as service:
        assert service.http.get("/v1/items?limit=5&version=1&after=&filter=").status_code == 200
        for written in ("+5", "5.0", " 5", "5\n", "1_0", "05", "٣", "true", ""):
            for name in ("limit", "version"):
                refused = service.http.get("/v1/items", params={name: written})
                assert (refused.status_code, refused.json()["detail"].startswith(f"{name}: ")) == (400, True), (name, written)
        for written in ("+1", "1.0", " 1", "01", "٣"):
            assert service.http.post(f"/v1/versions/{quote(written)}/activate").status_code == 400, written
        twice = service.http.get("/v1/items?limit=5&order=id&limit=5")
        assert (twice.status_code, "limit: given more than once" in twice.json()["detail"]) == (400, True)


def test_a_picture_is_sent_once():
    with running() as service:
        first = service.http.get("/v1/thumbnails/item/3")
        assert first.headers["content-type"] == "image/jpeg"
        assert first.content.endswith(b"item/3")
        again = service.http.get("/v1/thumbnails/item/3", headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert service.http.get("/v1/thumbnails/nobody").status_code == 404


def test_an_item_is_added_found_changed_and_removed():
    with running(FakeVersions(FakeHeld(2)), writable=True) as service:
        http = service.http
        added = http.put("/v1/items/new/mug", json={"fields": {"title": "New", "price": 3}, "image": b64(JPEG)})
        assert (added.status_code, added.json()["fields"]) == (201, {"title": "New", "price": 3.0})
        hit = http.post("/v1/search/image?k=1", content=JPEG, headers={"content-type": "image/jpeg"}).json()["hits"][0]
        assert (hit["id"], hit["distance"], hit["fields"]["title"]) == ("new/mug", 0.0, "New")
        assert service.living.images["new/mug"] == JPEG  # so that another model can embed it anew

        changed = http.patch("/v1/items/new/mug", json={"fields": {"price": None}})
        assert changed.json()["fields"] == {"title": "New", "price": None}
        replaced = http.put("/v1/items/new/mug", json={"embedding": [9.0, 9, 9, 9]})
        assert replaced.status_code == 200
        near = http.post("/v1/search/embedding", json={"embedding": [9, 9, 9, 9], "k": 1}).json()["hits"][0]
        assert near["id"] == "new/mug"
        assert http.delete("/v1/items/new/mug").status_code == 204
        for gone in (
            http.get("/v1/items/new/mug"),
            http.delete("/v1/items/new/mug"),
            http.patch("/v1/items/new/mug", json={"fields": {}}),
        ):
            assert gone.status_code == 404


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"fields": {}}, "either image or embedding"),
        ({"image": b64(JPEG), "embedding": [1, 2, 3, 4]}, "either image or embedding"),
        ({"embedding": [1, 2, 3]}, "3 numbers; those of version 2 have 4"),
        ({"embedding": [1, 2, 3, 4], "fields": {"colour": "red"}}, "no field 'colour'. Known: title, price"),
        ({"embedding": [1, 2, 3, 4], "fields": {"title": 7}}, "'title' is text, not int"),
        ({"embedding": [1, 2, 3, 4], "fields": {"price": "7"}}, "'price' is real, not str"),
        ({"embedding": [1, 2, 3, 4], "fields": {"price": True}}, "price"),
        ({"embedding": [1, 2, 3, 4], "fields": {"price": 2**70}}, "64 bits"),
        ({"embedding": [1, 2, 3, 4], "fields": {"title": "a\0b"}}, "NUL"),
        ({"image": "####"}, "not base64"),
    ],
)
def test_what_an_item_cannot_be(body, said):
    with running(FakeVersions(FakeHeld(2)), writable=True) as service:
        refused = service.http.put("/v1/items/x", json=body)
        assert refused.status_code == 400
        assert said in refused.json()["detail"]
        assert service.http.get("/v1/items/x").status_code == 404


def test_images_of_items_have_the_limits_of_all_images():
    with running(FakeVersions(FakeHeld(2)), writable=True, max_pixels=1000) as service:
        refused = [
            service.http.put("/v1/items/x", json={"image": b64(JPEG)}),
            service.http.put("/v1/items/x", json={"image": b64(b"no image at all")}),
            service.http.put("/v1/items/x", json={"image": b64(encoded(picture(9, 9), "PNG") + b"bad")}),
        ]
        assert [answer.status_code for answer in refused] == [413, 415, 422]


def test_thumbnails_of_added_items_are_small_upright_pictures():
    from tfdml_serving.api.changing import _thumbnail

    tall = Image.new("RGB", (300, 400), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    made = _thumbnail(encoded(tall, "JPEG", exif=exif))
    with Image.open(io.BytesIO(made)) as small:
        assert small.format == "JPEG"
        assert small.size == (160, 120)
    assert _thumbnail(b"BM no picture") is None


def test_nothing_is_written_unless_the_service_was_started_for_it():
    with running() as service:
        for refused in (
            service.http.put("/v1/items/a", json={"embedding": [1, 2, 3, 4]}),
            service.http.patch("/v1/items/item/1", json={"fields": {}}),
            service.http.delete("/v1/items/item/1"),
            service.http.post("/v1/versions/1/activate"),
        ):
            assert (refused.status_code, refused.json()["type"]) == (403, "urn:tfdml:problem:not-writable")


def test_versions_are_listed_pinned_and_released():
    with running(writable=True) as service:
        assert service.http.get("/v1/versions").json()["current"] == 2
        pinned = service.http.post("/v1/versions/1/activate").json()
        assert (pinned["current"], pinned["pinned"]) == (1, 1)
        assert service.http.post("/v1/search/item", json={"id": "item/1"}).json()["version"] == 1
        assert service.http.post("/v1/versions/9/activate").status_code == 404
        assert service.http.delete("/v1/versions/pin").json()["current"] == 2
