"Heads read back from disk: they say what they said, and nothing where they cannot."
import json

import numpy as np
import pandas as pd
import pytest
from fastai.vision.all import ColReader, ColSplitter, DataBlock, ImageBlock, MultiCategoryBlock, PILImage
from safetensors.numpy import load_file, save_file

from fastclean.featurefolds import FeatureFolds
from fastclean.savedheads import SavedHeads
from fastclean.data import digits_sample

@pytest.fixture(scope='module')
def multi(tmp_path_factory):
    "Digits that are even, small, or both, and heads for the two questions."
    root = digits_sample(tmp_path_factory.mktemp('d')/'digits')
    d = pd.DataFrame([(f.relative_to(root).as_posix(), ' '.join(w for w, yes in (('even', int(f.parent.name) % 2 == 0), ('small', int(f.parent.name) < 5)) if yes), i % 20 == 0)
                      for i, f in enumerate(sorted(root.rglob('*.png'))[::6])], columns=['name', 'labels', 'is_valid'])
    block = DataBlock((ImageBlock, MultiCategoryBlock), get_x=ColReader('name', pref=f'{root}/'), get_y=ColReader('labels', label_delim=' '), splitter=ColSplitter())
    kf = FeatureFolds(block.dataloaders(d, num_workers=0), image_size=48, neighbours=0, rounds=1).fit()
    return kf, kf.save_heads(tmp_path_factory.mktemp('m')/'model'), [root/o for o in d.name[d.is_valid]]

def test_several_labels(multi):
    kf, folder, files = multi
    heads = SavedHeads(folder)
    record = kf.predictions()
    assert heads.vocab == ['even', 'small'] and np.allclose(heads([PILImage.create(f) for f in files]), record.pred_probs[record.split == 'valid'], atol=1e-3)

def test_what_cannot_be_predicted_is_nan(multi):
    p = SavedHeads(multi[1])([PILImage.create(multi[2][0]), 'no picture'])
    assert np.isfinite(p[0]).all() and np.isnan(p[1]).all() and SavedHeads(multi[1])([]).shape == (0, 2)

def test_heads_of_other_features(multi, tmp_path):
    arrays, about = load_file(multi[1]/'heads.safetensors'), dict(kind='image', vocab=['even', 'small'], multi_label=True, folds=5, backbone='efficientnet-lite0', version='another', image_size=48, weights=None, words=None)
    save_file(arrays, tmp_path/'heads.safetensors', metadata=dict(about=json.dumps(about)))
    with pytest.raises(ValueError, match='with other weights than are here'): SavedHeads(tmp_path)
    save_file(arrays, tmp_path/'heads.safetensors')
    with pytest.raises(ValueError, match='no heads of FeatureFolds'): SavedHeads(tmp_path)
    with pytest.raises(ValueError, match='no heads that can be read'): SavedHeads(tmp_path/'nowhere')
