"Find the wrong labels in a data set, see them, correct them, and train past the ones that remain, from inside fastai."
import warnings
from importlib.metadata import PackageNotFoundError, version

try: __version__ = version('fastclean')
except PackageNotFoundError: __version__ = '0+unknown'

warnings.filterwarnings('ignore', r'`torch\.jit\.\w+` is deprecated', FutureWarning)   # fastai's import raises it on torch 2.14
