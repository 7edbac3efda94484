"Pictures: what is drawn, from any image, with any name, and nothing that a file can do stops it."
import io, os, subprocess, sys, warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fastclean.core import encode_name
from fastclean.interpret import item_image, plot_suspects, select_suspects, shorten, shown_name
from fastclean.plots import _most_confused, calibration, calibration_error, plot_calibration, plot_confident_joint, plot_label_health, plot_noise_matrix

def table(n=6, **cols):
    "A table of issues, all of them marked."
    d = dict(item=[f'{i}.png' for i in range(n)], split='train', given_label='cat', predicted_label='dog', is_label_issue=True, label_score=.1, suggested_label='dog',
             suggested_prob=.9, certainty='obvious', fold=0, verified=False, twin=None, outlier_score=np.nan)
    return pd.DataFrame(dict(d, **cols), index=range(n))

def texts(fig): return [t.get_text() for o in (fig, *fig.axes) for t in o.texts]

def picture(item): return Image.new('RGB', (40, 30), 'teal')

def drawn(fig):
    fig.canvas.draw()
    return fig

# Suspects

def test_each_tile_says_what_it_shows():
    d = table(1, item='a/b.png', split='valid', given_label='cat', suggested_label='dog', suggested_prob=.87, verified=True)
    t = texts(plot_suspects(d, load=picture))
    assert {'cat', '→ dog', '87 %', 'valid · obvious · verified', 'a/b.png', '1 suspect'} <= set(t)

@pytest.mark.parametrize('prob,shown', [(.999, ('→ dog', '> 99 %')), (.994, ('→ dog', '99 %')), (.5, ('→ dog', '50 %')), (.36, ('→ dog?', '36 %')), (np.nan, ('→ dog?', ''))])
def test_probabilities(prob, shown): assert set(shown) <= set(texts(plot_suspects(table(1, suggested_prob=prob), load=picture)))

def test_only_issues_and_in_their_order():
    d = table(5, is_label_issue=[True, True, False, True, True], split=['train', 'valid', 'train', 'train', 'test'])
    assert list(select_suspects(d)['item']) == ['0.png', '1.png', '3.png', '4.png']
    assert list(select_suspects(d, split='train')['item']) == ['0.png', '3.png']
    assert list(select_suspects(d, 2, split=['valid', 'test'])['item']) == ['1.png', '4.png']
    seen = []
    fig = plot_suspects(d, load=lambda item: seen.append(item) or picture(item), k=3)
    assert seen == ['0.png', '1.png', '3.png'] and len(fig.axes) == 3 and 'The worst 3 of 4 suspects' in texts(fig)
    assert '2 suspects in train' in texts(plot_suspects(d, load=picture, split='train'))

def test_more_wanted_than_there_are():
    fig = plot_suspects(table(3), load=picture, k=1000)
    assert len(fig.axes) == 3 and '3 suspects' in texts(fig)

@pytest.mark.parametrize('split,said', [(None, 'No suspects'), ('test', 'No suspects in test')])
def test_nothing_to_show(split, said):
    fig = drawn(plot_suspects(table(4, is_label_issue=False), split=split))
    assert said in texts(fig) and not fig.axes

def test_k_must_be_positive():
    with pytest.raises(ValueError, match='k must be'): plot_suspects(table(2), k=0)

@pytest.mark.parametrize('n,columns', [(1, 1), (4, 4), (6, 3), (8, 4), (9, 3), (16, 4), (100, 8)])
def test_the_grid_is_about_a_square(n, columns):
    fig = plot_suspects(table(n), load=picture, k=n)
    assert len({round(a.get_position().x0, 6) for a in fig.axes}) == columns

ODD = ['$x^2$', r'$\nosuch{$', '$unclosed', 'W'*60, 'a\nb', '\u202egnp', '猫 кот قط', '', r'\frac', '%s {0}', 'n02102040 English springer spaniel', r'caf\xe9', 'tab\there', '\x00', '&lt;']

def test_odd_names_are_drawn_as_they_are_and_stay_in_their_tile():
    d = table(len(ODD), given_label=pd.Series(ODD, dtype=object), suggested_label=pd.Series(ODD[::-1], dtype=object), item=[f'{o}/{"long"*i}.png' for i, o in enumerate(ODD)])
    fig = drawn(plot_suspects(d, load=picture, k=99, ncols=5, title='$' + 'T'*200))
    assert '$x^2$' in texts(fig) and '$unclosed' in texts(fig) and 'a·b' in texts(fig) and '·gnp' in texts(fig)
    r, W = fig.canvas.get_renderer(), fig.get_size_inches()[0]*fig.dpi
    tile = 1.9*fig.dpi
    assert len(max((t for t in texts(fig) if set(t) == {'W', '…'}), key=len)) > 10
    for t in fig.texts[4:]:
        box = t.get_window_extent(r)
        if t.get_text(): assert int((box.x0 + 1 - 16)//tile) == int((box.x1 - 1 - 16)//tile) and box.x1 < W, t.get_text()

def test_letters_without_a_font_give_no_warnings():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        drawn(plot_suspects(table(1, given_label='\U0001fae8 \u1c50'), load=picture))
        drawn(plot_noise_matrix(np.eye(2), ['\u1c50', 'b']))
    assert not caught

def test_class_names_of_any_type():
    assert {'1', '→ True'} <= set(texts(plot_suspects(table(1, given_label=1, suggested_label=True), load=picture)))

def test_what_cannot_be_read_is_a_grey_tile(tmp_path):
    (tmp_path/'text.png').write_text('no image')
    (tmp_path/'empty.png').touch(); (tmp_path/'folder.png').mkdir()
    whole = io.BytesIO(); Image.effect_noise((64, 64), 50).save(whole, 'JPEG')
    (tmp_path/'cut.jpg').write_bytes(whole.getvalue()[:len(whole.getvalue())//2])
    Image.new('RGB', (9, 9)).save(tmp_path/'good.png')
    items = ['text.png', 'empty.png', 'folder.png', 'cut.jpg', 'gone.png', 'a\x00b', 'x'*5000, 'good.png']
    fig = drawn(plot_suspects(table(8, item=items), tmp_path))
    assert texts(fig).count('cannot be read') == 7

def test_a_loader_that_fails_and_one_that_gives_nothing():
    assert texts(plot_suspects(table(2), load=lambda item: 1/0)).count('cannot be read') == 2
    assert texts(plot_suspects(table(2), load=lambda item: None)).count('cannot be read') == 2

def test_names_that_are_not_utf8_and_repeats_are_found(tmp_path):
    raw = os.fsdecode(b'caf\xe9.png')
    Image.new('RGB', (9, 9)).save(tmp_path/raw)
    assert item_image(encode_name(raw), tmp_path).size == (9, 9) and item_image(encode_name(raw) + '#2', tmp_path).size == (9, 9)

def test_no_state_of_pyplot_is_touched():
    code = ("import sys, numpy as np; sys.path.insert(0, 'tests'); from test_interpret import *; f = plot_suspects(table(2), load=picture); f.savefig('/dev/null', format='png');"
            "plot_noise_matrix(np.eye(3)); print('matplotlib.pyplot' in sys.modules)")
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=root).stdout.strip() == 'False'

def test_a_notebook_shows_it_and_it_is_the_same_each_time():
    a, b = (plot_suspects(table(2), load=picture)._repr_png_() for _ in range(2))
    assert a == b and Image.open(io.BytesIO(a)).size == (396, 318)

# Pictures of any kind

@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'LA', 'PA', 'RGB', 'RGBA', 'RGBX', 'CMYK', 'YCbCr', 'HSV', 'LAB', 'I', 'I;16', 'F'])
def test_every_mode_becomes_rgb(mode):
    im = item_image('x', load=lambda item: Image.new(mode, (20, 10)))
    assert im.mode == 'RGB' and im.size == (20, 10)

def test_transparency_lies_over_white():
    assert item_image('x', load=lambda item: Image.new('RGBA', (4, 4), (0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)

def test_sixteen_bits_are_scaled_to_what_is_there():
    a = np.array([[1000, 3000], [2000, 3000]], dtype=np.uint16)
    assert np.asarray(item_image('x', load=lambda item: Image.fromarray(a)))[..., 0].tolist() == [[0, 255], [127, 255]]
    nan = np.array([[np.nan, 0], [1, .5]], dtype=np.float32)
    assert np.asarray(item_image('x', load=lambda item: Image.fromarray(nan)))[..., 0].tolist() == [[0, 0], [255, 127]]

def test_photographs_are_turned_as_the_camera_says(tmp_path):
    im = Image.new('RGB', (40, 20)); exif = im.getexif(); exif[0x112] = 6
    im.save(tmp_path/'a.jpg', exif=exif)
    assert item_image('a.jpg', tmp_path).size == (20, 40)

@pytest.mark.parametrize('shape,dtype,size', [((10, 20), 'uint8', (20, 10)), ((10, 20, 3), 'uint8', (20, 10)), ((3, 10, 20), 'float32', (20, 10)), ((1, 10, 20), 'float64', (20, 10)), ((10, 20, 1), 'uint8', (20, 10)), ((10, 20, 4), 'uint8', (20, 10))])
def test_arrays(shape, dtype, size): assert item_image('x', load=lambda item: np.ones(shape, dtype)).size == size

def test_floats_of_0_to_1_and_of_0_to_255():
    level = lambda v: item_image('x', load=lambda item: np.full((2, 2), v)).getpixel((0, 0))[0]
    assert level(.5) == 127 and level(200.) == 200 and level(1.) == 255

def test_large_ones_become_small_and_small_ones_stay():
    assert item_image('x', load=lambda item: Image.new('L', (1000, 10))).size == (256, 3) and item_image('x', load=lambda item: Image.new('L', (5, 5))).size == (5, 5)

# Names

@pytest.mark.parametrize('name,shown', [('a\r\nb', 'a··b'), ('\u2066x\u200f', '·x·'), (os.fsdecode(b'\xe9'), r'\xe9'), (None, 'None'), (3, '3'), ('ż 猫 \U0001f431', 'ż 猫 \U0001f431'), (r'\x41', r'\x41')])
def test_shown_name(name, shown): assert shown_name(name) == shown

@pytest.mark.parametrize('n', range(1, 12))
def test_shorten(n):
    s = shorten('0123456789', n)
    assert len(s) == min(n, 10) and (n >= 10 or '…' in s)

# Matrices and classes

def test_the_matrix_writes_per_cents_and_nothing_for_nothing():
    T = np.array([[.9, .1, 0], [.004, .996, 0], [0, 0, 1]])
    t = texts(drawn(plot_noise_matrix(T, ['a', '$b$', 'c'])))
    assert t.count('') == 4 and {'90', '10', '0.4', '100'} <= set(t)

def test_the_classes_that_are_mixed_up_most_are_shown():
    T = np.eye(50); T[7, 30] = .3; T[7, 7] = .7; T[41, 2] = .2; T[41, 41] = .8; T[5, 6] = .1; T[5, 5] = .9
    assert list(_most_confused(T, 4)) == [2, 7, 30, 41]
    fig = drawn(plot_noise_matrix(T, [f'class {k}' for k in range(50)], top=4))
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == ['class 2', 'class 7', 'class 30', 'class 41']
    assert any('the 4 of 50 classes' in t for t in texts(fig))

def test_many_classes_give_the_same_choice_as_a_full_sort():
    rng = np.random.default_rng(0)
    T = rng.random((1200, 1200)); T /= T.sum(1, keepdims=True)
    off = T - np.diag(T.diagonal())
    i, j = np.divmod(np.argsort(-off, axis=None)[:200], 1200)
    want = list(dict.fromkeys(np.stack([i, j], 1).ravel()))[:12]
    assert list(_most_confused(T, 12)) == sorted(want)

def test_matrix_errors():
    with pytest.raises(ValueError, match='square'): plot_noise_matrix(np.ones((2, 3)))
    with pytest.raises(ValueError, match='names 1 classes'): plot_noise_matrix(np.eye(2), ['a'])

def test_health_with_gaps_and_many_classes():
    n = 30
    d = pd.DataFrame({'class': pd.Series([1, True, r'$\nosuch{$', *map(str, range(n - 3))], dtype=object), 'n': range(n), 'label_issues': pd.array([pd.NA, *range(n - 1)], dtype='Int64'),
                      'label_noise': [np.nan, *np.linspace(.5, 0, n - 1)], 'inverse_noise': [np.nan, *np.linspace(.2, 0, n - 1)], 'label_quality': 1.})
    fig = drawn(plot_label_health(d, top=5))
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == ['1', 'True', r'$\nosuch{$', '0', '1']
    assert {'0', '0 of 1', '3 of 4'} <= set(texts(fig)) and any('5 worst of 30' in t for t in texts(fig))
    bars = [p.get_width() for p in fig.axes[0].patches]
    assert np.allclose(bars[1], 50) and np.allclose(bars[6], 20) and bars[0] == 0
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        drawn(plot_label_health(d[:0]))
