"""What a noise matrix for each split is worth, where the training labels are noisy and the validation labels are clean.

`python benchmarks/splits.py [--seed 0]`: reads the predictions that `python benchmarks/find_labels.py` has left for Imagenette (noise in the training set only) and marks issues three
ways: one matrix for all, one for each split alone, and the default, one for each split drawn towards the common one. Prints precision and recall in train, and what is flagged in valid, where every label is right.
"""
import argparse, tempfile, warnings
from pathlib import Path

import numpy as np
import pandas as pd

from find_labels import table
from fastclean.core import Predictions
from fastclean.issues import find_label_issues
from fastclean.transition import estimate_transition, plausible_sharpening, split_transitions

WAYS = dict(common=lambda p, t: estimate_transition(p.given_label, p.pred_probs, t), alone=lambda p, t: split_transitions(p, sharpen=t, strength=.02), default=lambda p, t: split_transitions(p, sharpen=t))

def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--seed', type=int, default=0); a.add_argument('--work', type=Path, default=Path(tempfile.gettempdir())/'fastclean-benchmark')
    a = a.parse_args()
    warnings.simplefilter('ignore')
    rows = []
    for noise in (1, 5, 25, 50):
        preds, d = Predictions.load(a.work/f'imagenette-{noise}-{a.seed}'/'predictions'), table(f'imagenette-{noise}', a.seed)
        t = plausible_sharpening(preds)
        for way, make in WAYS.items():
            m = find_label_issues(preds, sharpen=t, T=make(preds, t.best)).merge(d[['path', 'true_label']], left_on='item', right_on='path', validate='one_to_one')
            wrong, flag, train = (m.given_label != m.true_label), m.is_label_issue, m['split'] == 'train'
            hit = (wrong & flag & train).sum()
            rows.append(dict(noise=noise, matrix=way, precision=hit/(flag & train).sum(), recall=hit/(wrong & train).sum(), f1_all=2*(wrong & flag).sum()/(wrong.sum() + flag.sum()), flagged_in_valid=int((flag & ~train).sum())))
    print(pd.DataFrame(rows).round(4).to_string(index=False))

if __name__ == '__main__': main()
