"""PLY and PCD files as other programs write them: faces first, lists, padding, byte order marks, any line ends."""

import numpy as np
import pytest
from support.scanfiles import POINTS, SCENE, pcd_of, ply_of

from mafr.data.formats.clouds import decode_cloud
from mafr.errors import DataError

FACES = {"none": (), "triangles": ((0, 1, 2),) * 50, "mixed": ((0, 1, 2), (0, 1, 2, 3), (), (4, 5)) * 5}


@pytest.mark.parametrize("vertex", ["xyz", "lxyz", "xlyz", "xyzl"])
@pytest.mark.parametrize("faces", FACES)
@pytest.mark.parametrize("order", ["", "<", ">"])
def test_ply_with_faces_first_and_lists_in_vertices(order, faces, vertex, tmp_path):
    content = ply_of(POINTS, order, FACES[faces], vertex)
    np.testing.assert_array_equal(decode_cloud(content, tmp_path, (40, 60), tmp_path), SCENE)
    if len(content) > 2000:
        with pytest.raises(DataError, match=r"cut off|no number|holds fewer"):
            decode_cloud(content[:-30], tmp_path, (40, 60), tmp_path)


def test_a_ply_whose_coordinate_is_a_list_says_so(tmp_path):
    content = ply_of(POINTS, "").replace(b"property float y", b"property list uchar float y")
    with pytest.raises(DataError, match=r"y of a vertex is a list; one number each expected"):
        decode_cloud(content, tmp_path, (40, 60), tmp_path)
    content = ply_of(POINTS, "<", ((1, 2),)).replace(b"list uchar int", b"list char int", 1)
    damaged = content.replace(b"end_header\n\x02", b"end_header\n\xff")
    with pytest.raises(DataError, match=r"a list of -1 numbers in the PLY file"):
        decode_cloud(damaged, tmp_path, (40, 60), tmp_path)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("form", ["ascii.ply", "binary.ply", "ascii.pcd", "binary.pcd"])
def test_byte_order_marks_and_line_ends_of_every_kind(form, begin, newline, tmp_path):
    kind, suffix = form.split(".")
    points = POINTS.copy()
    points[0, 0] = np.frombuffer(b"\n\r\n=", "<f4")[0]  # data that begins as a line ends
    if suffix == "ply":
        content = ply_of(points, "" if kind == "ascii" else "<", newline=newline)
    else:
        content = pcd_of(points, kind, newline=newline)
    expected = points.reshape(SCENE.shape)
    np.testing.assert_array_equal(decode_cloud(begin + content, tmp_path, (40, 60), tmp_path), expected)


@pytest.mark.parametrize("kind", ["ascii", "binary", "binary_compressed"])
@pytest.mark.parametrize("fields", ["_ x y z", "x _ y _ z", "x y z _"])
def test_pcd_fields_that_count_0_take_no_bytes(fields, kind, tmp_path):
    found = decode_cloud(pcd_of(POINTS, kind, fields), tmp_path, (40, 60), tmp_path)
    np.testing.assert_array_equal(found, SCENE)


def test_pcd_headers_with_other_beginnings(tmp_path):
    for first in ("# made by a scanner\n# of ours\nVERSION .7", "#.PCD v.7", "# .PCD v0.7\nVERSION 0.7"):
        found = decode_cloud(pcd_of(POINTS, "binary", first=first), tmp_path, (40, 60), tmp_path)
        np.testing.assert_array_equal(found, SCENE)
    broken = pcd_of(POINTS, "binary", "_ x y z").replace(b"COUNT 0", b"COUNT -1")
    with pytest.raises(DataError, match="header of the PCD file is damaged"):
        decode_cloud(broken, tmp_path, (40, 60), tmp_path)
    without = pcd_of(POINTS, "binary", "_ x y z").replace(b"COUNT 0 1", b"COUNT 0 0")
    with pytest.raises(DataError, match="each once, expected, found _, x, y, z"):
        decode_cloud(without, tmp_path, (40, 60), tmp_path)
