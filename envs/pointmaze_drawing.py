import numpy as np
def draw_maze(*a):
    return np.zeros((64,64,3),np.uint8)
