import subprocess
import sys

import pytest

from diffgen.errors import UsageError
from diffgen.train.buckets import bucket_sizes, nearest_bucket, place, unenlarged


@pytest.mark.parametrize(("size", "step"), [((512, 512), 64), ((64, 64), 8), ((768, 512), 64)])
def test_buckets_keep_the_area_and_the_step(size, step):
    area = size[0] * size[1]
    buckets = bucket_sizes(size, step)
    assert size in buckets
    for width, height in buckets:
        assert width % step == 0
        assert height % step == 0
        # One more step in height would exceed the area, so at most that much is lost.
        assert area - width * step < width * height <= area or (
            area - height * step < width * height <= area
        )
    assert {(h, w) for w, h in buckets} == set(buckets)


def test_a_step_beyond_the_picture_is_refused():
    with pytest.raises(UsageError, match="bucket_step 128 is too large"):
        bucket_sizes((64, 64), 128)


def test_pictures_go_where_their_shape_is_nearest():
    buckets = bucket_sizes((512, 512), 64)
    assert nearest_bucket((3000, 3000), buckets) == (512, 512)
    assert nearest_bucket((1920, 1080), buckets) == (640, 384)
    assert nearest_bucket((1080, 1920), buckets) == (384, 640)


def test_a_picture_that_would_be_enlarged_keeps_its_own_size():
    assert unenlarged((1000, 1000), (512, 512), 64) == (512, 512)
    assert unenlarged((512, 512), (512, 512), 64) == (512, 512)
    assert unenlarged((400, 300), (576, 448), 64) == (384, 256)
    assert unenlarged((300, 50), (512, 512), 64) == (512, 512)  # lower than a step
    assert unenlarged((640, 100), (1024, 256), 64) == (1024, 256)  # longer than any bucket


def test_a_picture_is_cropped_along_one_side_only_and_enlarged_no_more_than_it_must_be():
    placement = place((200, 100), (50, 50))
    assert placement.box == (50.0, 0.0, 150.0, 100.0)
    assert placement.scale == 2.0
    small = place((20, 40), (80, 80))
    assert small.box == (0.0, 10.0, 20.0, 30.0)
    assert small.scale == 0.25  # exactly the 80 pixels across, not more


@pytest.mark.parametrize("x", [0.0, 0.3, 0.999])
def test_random_crops_stay_inside(x):
    left, top, right, bottom = place((201, 101), (64, 48), x=x, y=x).box
    assert 0 <= left < right <= 201
    assert 0 <= top < bottom <= 101
    assert (right - left) / (bottom - top) == pytest.approx(64 / 48)


def test_time_ids_measure_the_crop_in_the_resized_picture():
    placement = place((400, 100), (50, 50), x=0.25)  # half size; 200 wide, 150 to choose from
    assert placement.time_ids(flipped=False) == (100, 400, 0, 38, 50, 50)
    assert placement.time_ids(flipped=True) == (100, 400, 0, 112, 50, 50)


def test_buckets_and_captions_need_no_torch():
    code = "import sys, diffgen.train.data.loader, diffgen.train.data.captions; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
