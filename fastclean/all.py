"What a notebook imports: `from fastclean.all import *` brings fastclean and fastai's vision library."
from fastai.vision.all import *
from .core import *
from .data import *
from .loaders import *
from .noise import *
from .inject import *
from .transition import *
from .features import load_backbone
from .kfold import KFoldLearner
from .featurefolds import FeatureFolds
from .learners import *
from .issues import *
from .find import *
from .health import *
from .interpret import *
from .report import *
