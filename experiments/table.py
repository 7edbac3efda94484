#!/usr/bin/env python3
"""The tables that `train.py` has written, held against the truth: `python experiments/table.py`.

Prints a row for each network, way of training, way of predicting, filter and level of noise: labels that are wrong in truth, labels that were marked, precision, recall and F1. Writes
`experiments/imagenette.csv`, and with `--page-to docs/experiments.md` that page's tables, with `--chart-to FILE` the README's picture."""
import re
from pathlib import Path

import pandas as pd
from fastcore.script import call_parse

FIRST = {5: .918, 25: .954, 50: .937}   # the best F1 of the first fastclean, of any of its ways

def scores(file, noise):
    "How a table's marks agree with the truth that is in it."
    d = pd.read_csv(file, dtype={'is_label_issue': bool})
    wrong, marked = d[f'noisy_labels_{noise}'] != d.noisy_labels_0, d.is_label_issue
    hit = (wrong & marked).sum()
    return dict(wrong=wrong.sum(), marked=marked.sum(), precision=hit/max(marked.sum(), 1), recall=hit/max(wrong.sum(), 1), f1=2*hit/max(wrong.sum() + marked.sum(), 1))

def rows(out):
    "A row for each table below a folder."
    for file in sorted(out.rglob('noisy*_train_predictions*.csv')):
        filter_by, training, *net = file.relative_to(out).parts[-2::-1]
        noise = int(file.name.removeprefix('noisy').split('_')[0])
        smoothing = {'imagenette_labelsmoothing': 'yes', 'imagenette_no_labelsmoothing': 'no'}.get(training, '')
        yield dict(network=net[0] if net else 'fastclean find' if training == 'imagenette_find' else 'head on frozen features', smoothing=smoothing,
                   predicted='in-sample' if file.stem.endswith('in_sample') else 'out-of-fold', filter=filter_by, noise=noise) | scores(file, noise)

def chart(d, file):
    "F1 by filter, in-sample beside out-of-fold, for each level of noise."
    import matplotlib.pyplot as plt
    levels, head = sorted(d.noise.unique()), d[d.network == 'head on frozen features']
    best = head.groupby(['noise', 'predicted', 'filter']).f1.max()
    names = ['prune_noise_rate', 'prune_noise_rate_class', 'posterior']
    fig, axs = plt.subplots(1, len(levels), figsize=(3.2*len(levels), 2.9), sharey=True, layout='constrained', squeeze=False)
    for ax, noise in zip(axs[0], levels):
        own = d[(d.network == 'fastclean find') & (d.noise == noise) & (d['filter'] == 'posterior')].f1.max()
        for i, name in enumerate(names):
            a, b = (best.get((noise, way, name), float('nan')) for way in ('in-sample', 'out-of-fold'))
            ax.plot([a, b], [i, i], color='#c9cdd4', lw=3, zorder=1)
            ax.scatter(a, i, color='#b42318', zorder=2, label='in-sample' if i == 0 else None)
            ax.scatter(b, i, color='#13703c', zorder=2, label='out-of-fold' if i == 0 else None)
        ax.scatter(own, 3, color='#13703c', marker='D', zorder=2)
        if noise in FIRST: ax.axvline(FIRST[noise], color='#1f2328', ls=':', lw=1.2, label='best of the first fastclean')
        ax.set_yticks(range(4), [*(o.replace('_', ' ') for o in names), 'fastclean find'])
        ax.set(title=f'{noise} % of the labels wrong', xlabel='F1', xlim=(.68, 1), ylim=(-.5, 3.5))
        ax.grid(axis='x', color='#eceef1'); ax.set_axisbelow(True)
        ax.spines[['top', 'right']].set_visible(False)
    fig.legend(*axs[0][0].get_legend_handles_labels(), loc='outside lower center', ncols=4, frameon=False)
    fig.savefig(file, dpi=110)

def tables(d):
    "A table in Markdown for each level of noise: filters, and in-sample beside out-of-fold."
    names = dict(prune_noise_rate='prune by noise rate', prune_noise_rate_class='both', posterior='posterior')
    head = '| filter | smoothing | in-sample: found | precision | recall | F1 | out-of-fold: found | precision | recall | F1 |\n|:--|:--|--:|--:|--:|--:|--:|--:|--:|--:|'
    def _cells(g, way):
        g = g[g.predicted == way]
        return [f'{g.marked.iloc[0]:,}', *(f'{v:.3f}' for v in g[['precision', 'recall', 'f1']].iloc[0])] if len(g) else ['']*4
    for noise, level in d.groupby('noise'):
        rows = [[('`fastclean find`, ' if net == 'fastclean find' else '') + names[f], smooth, *_cells(g, 'in-sample'), *_cells(g, 'out-of-fold')]
                for f in names for (net, smooth), g in level[level['filter'] == f].fillna({'smoothing': ''}).groupby(['network', 'smoothing'])]
        yield f'## {noise} % of the labels wrong: {level.wrong.iloc[0]:,}\n\n{head}\n' + '\n'.join(f"| {' | '.join(r)} |" for r in rows)

def page(text, d):
    "A page with its tables made anew: they are all that follows its first heading of the second level."
    return re.split(r'(?m)^## ', text)[0].rstrip() + '\n\n' + '\n\n'.join(tables(d)) + '\n'

@call_parse
def main(
    out:str='RESULTS', # Folder that train.py has written into
    to:str=str(Path(__file__).with_name('imagenette.csv')), # CSV of the rows
    page_to:str=None, # Markdown page whose tables are made anew: docs/experiments.md
    chart_to:str=None, # PNG of the chart
):
    "How good the marks are."
    d = pd.DataFrame(rows(Path(out))).sort_values(['network', 'smoothing', 'predicted', 'filter', 'noise'])
    if not len(d): raise SystemExit(f'{out} holds no tables yet: run experiments/train.py')
    d.round(4).to_csv(to, index=False)
    wide = d.pivot_table(index=['network', 'smoothing', 'predicted', 'filter'], columns='noise', values='f1')
    print(wide.round(3).to_string())
    if page_to: Path(page_to).write_text(page(Path(page_to).read_text(encoding='utf-8'), pd.read_csv(to)), encoding='utf-8')
    if chart_to: chart(d, chart_to)
