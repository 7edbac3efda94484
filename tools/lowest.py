"""The oldest versions that settings.ini names, of what stands in other versions here.

    python tools/lowest.py install FOLDER    # beside the environment: what FOLDER holds comes before it by PYTHONPATH
    python tools/lowest.py check             # whether those are what is imported
"""
import subprocess, sys
from configparser import ConfigParser
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

OURS = ('requirements', 'text_requirements', 'app_requirements', 'labelstudio_requirements', 'track_requirements')   # not what only develops fastclean

def lowest():
    "Oldest version of each package."
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(Path(__file__).parent.parent/'settings.ini', encoding='utf-8')
    return {r.name: next(s.version for s in r.specifier if s.operator == '>=') for k in OURS for r in map(Requirement, cfg['DEFAULT'][k].split())}

def others(): return {k: v for k, v in lowest().items() if Version(version(k)) != Version(v)}

def main(what, folder=None):
    if what == 'install': subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-deps', '--upgrade', '--target', folder, *(f'{k}=={v}' for k, v in others().items())], check=True)
    elif bad := others(): sys.exit('not the oldest: ' + ', '.join(f'{k} {version(k)}, not {v}' for k, v in bad.items()))
    else: print(f'the oldest versions of {len(lowest())} packages')

if __name__ == '__main__': main(*sys.argv[1:])
