// Drawn pictures of what the network for photographs knows: each draws into a square of 64 units.

// Fills a shape given as points, or as a function that makes a path.
const fill = (to, colour, path) => {
    to.fillStyle = colour;
    to.beginPath();
    if (typeof path === 'function') path(to);
    else path.forEach(([x, y], i) => (i ? to.lineTo(x, y) : to.moveTo(x, y)));
    to.fill();
};

const round =
    (x, y, across, down = across, turn = 0) =>
    (to) =>
        to.ellipse(x, y, across, down, turn, 0, 7);

// From one colour above to another below.
const shade = (to, from, until, top = 0, bottom = 64) => {
    const ramp = to.createLinearGradient(0, top, 0, bottom);
    ramp.addColorStop(0, from);
    ramp.addColorStop(1, until);
    to.fillStyle = ramp;
    to.fillRect(0, top, 64, bottom - top);
};

const wheels = (to, y, r, ...places) => {
    for (const x of places) {
        fill(to, '#15161a', round(x, y, r));
        fill(to, '#8d9096', round(x, y, r / 2));
    }
};

export const scenes = {
    airplane(to) {
        shade(to, '#6fa3d8', '#cfe3f2');
        fill(to, '#dfe3e8', round(32, 34, 25, 4.5, -0.12));
        fill(to, '#aeb6c0', [
            [26, 33],
            [38, 32],
            [24, 50],
            [18, 50],
        ]);
        fill(to, '#c3cad2', [
            [30, 31],
            [38, 30],
            [28, 20],
            [24, 20],
        ]);
        fill(to, '#9aa4b0', [
            [8, 36],
            [15, 35],
            [9, 24],
            [5, 24],
        ]);
        fill(to, '#59646f', round(53, 30.5, 2.5, 1.6, -0.12));
    },
    automobile(to) {
        shade(to, '#d5d9dc', '#e8e6e0', 0, 44);
        shade(to, '#77777a', '#5b5b5e', 44, 64);
        fill(to, '#b3171c', [
            [4, 44],
            [6, 34],
            [18, 31],
            [26, 21],
            [44, 21],
            [53, 32],
            [60, 35],
            [61, 46],
            [4, 46],
        ]);
        fill(to, '#27313b', [
            [22, 31],
            [28, 24],
            [35, 24],
            [35, 31],
        ]);
        fill(to, '#27313b', [
            [37, 31],
            [37, 24],
            [43, 24],
            [49, 31],
        ]);
        fill(to, '#f3dfa0', round(58, 38, 2, 1.5));
        wheels(to, 47, 6.5, 16, 49);
    },
    ship(to) {
        shade(to, '#bccbd6', '#dfe6ea', 0, 34);
        shade(to, '#3c6f94', '#24506f', 34, 64);
        fill(to, '#22262c', [
            [2, 35],
            [62, 33],
            [55, 50],
            [9, 50],
        ]);
        fill(to, '#9c3327', [
            [8, 46],
            [57, 46],
            [55, 50],
            [9, 50],
        ]);
        fill(to, '#f4f4f2', [
            [10, 35],
            [10, 26],
            [30, 26],
            [30, 34],
        ]);
        fill(to, '#e9e9e6', [
            [14, 26],
            [14, 16],
            [25, 16],
            [25, 26],
        ]);
        fill(to, '#2d3a45', [
            [15, 21],
            [15, 18],
            [24, 18],
            [24, 21],
        ]);
        for (const x of [33, 42, 51])
            fill(to, '#a8622f', [
                [x, 34],
                [x, 28],
                [x + 8, 28],
                [x + 8, 34],
            ]);
    },
    truck(to) {
        shade(to, '#c6d3dd', '#dfe2e0', 0, 46);
        shade(to, '#85827c', '#64615c', 46, 64);
        fill(to, '#e9ebec', [
            [3, 14],
            [42, 14],
            [42, 46],
            [3, 46],
        ]);
        fill(to, '#c9ced2', [
            [3, 40],
            [42, 40],
            [42, 46],
            [3, 46],
        ]);
        fill(to, '#2458a6', [
            [43, 22],
            [55, 22],
            [61, 33],
            [61, 47],
            [43, 47],
        ]);
        fill(to, '#1d2833', [
            [46, 25],
            [54, 25],
            [58, 33],
            [46, 33],
        ]);
        wheels(to, 48, 6, 12, 24, 52);
    },
    horse(to) {
        shade(to, '#b9d0df', '#cfdcd4', 0, 34);
        shade(to, '#6f9a45', '#567d34', 34, 64);
        const coat = '#6b3d1f';
        fill(to, coat, round(30, 32, 16, 8.5));
        fill(to, coat, [
            [38, 30],
            [48, 12],
            [56, 16],
            [45, 36],
        ]);
        fill(to, coat, round(54, 16, 7, 3.8, 0.6));
        fill(to, '#2d1a10', [
            [38, 26],
            [46, 9],
            [49, 10],
            [43, 24],
        ]);
        for (const x of [17, 22, 37, 42])
            fill(to, coat, [
                [x, 36],
                [x + 4, 36],
                [x + 3, 58],
                [x + 0.5, 58],
            ]);
        fill(to, '#2d1a10', [
            [16, 28],
            [8, 44],
            [12, 46],
            [17, 34],
        ]);
    },
    deer(to) {
        shade(to, '#7d8f5a', '#8f9a55');
        const coat = '#9c6b3d';
        fill(to, coat, round(30, 36, 14, 8));
        fill(to, coat, [
            [38, 34],
            [43, 18],
            [49, 20],
            [44, 38],
        ]);
        fill(to, coat, round(48, 18, 5.5, 3.4, 0.5));
        for (const x of [19, 23, 36, 40])
            fill(to, '#7c5430', [
                [x, 40],
                [x + 3, 40],
                [x + 2, 60],
                [x + 0.5, 60],
            ]);
        fill(to, '#e8dcc4', round(17, 34, 2.5, 4));
        to.strokeStyle = '#4c3420';
        to.lineWidth = 1.6;
        for (const d of [-1, 1]) {
            to.beginPath();
            to.moveTo(46, 15);
            to.lineTo(46 + 5 * d, 4);
            to.moveTo(46 + 3 * d, 9);
            to.lineTo(46 + 8 * d, 8);
            to.stroke();
        }
    },
    bird(to) {
        shade(to, '#dfe7d6', '#b9c9a0');
        fill(to, '#5b4632', [
            [0, 50],
            [64, 46],
            [64, 49],
            [0, 53],
        ]);
        fill(to, '#5c6f86', round(30, 34, 14, 9, -0.5));
        fill(to, '#c98d55', round(33, 38, 9, 6, -0.5));
        fill(to, '#46586d', round(43, 21, 7));
        fill(to, '#e0b23c', [
            [49, 20],
            [57, 22],
            [49, 24],
        ]);
        fill(to, '#111', round(45, 20, 1.4));
        fill(to, '#39485a', [
            [20, 38],
            [4, 52],
            [10, 54],
            [24, 42],
        ]);
        fill(to, '#39485a', round(26, 34, 10, 4.5, -0.7));
    },
    cat(to) {
        shade(to, '#8c7a66', '#a8957d');
        const fur = '#6d6a66';
        fill(to, fur, round(32, 52, 20, 18));
        fill(to, fur, round(32, 28, 17, 15));
        fill(to, fur, [
            [16, 24],
            [17, 5],
            [30, 15],
        ]);
        fill(to, fur, [
            [48, 24],
            [47, 5],
            [34, 15],
        ]);
        fill(to, '#c99a93', [
            [19, 18],
            [20, 10],
            [26, 15],
        ]);
        fill(to, '#c99a93', [
            [45, 18],
            [44, 10],
            [38, 15],
        ]);
        for (const x of [25, 39]) {
            fill(to, '#b8c95a', round(x, 27, 4, 3.4));
            fill(to, '#111', round(x, 27, 1.4, 3));
        }
        fill(to, '#e9e4dc', round(32, 36, 7, 5));
        fill(to, '#b5736b', [
            [30, 32],
            [34, 32],
            [32, 35],
        ]);
    },
    dog(to) {
        shade(to, '#9fb08a', '#7f9464');
        const fur = '#b98a55';
        fill(to, fur, round(32, 54, 19, 18));
        fill(to, fur, round(32, 29, 15, 15));
        fill(to, '#7b5327', round(16, 31, 5, 12, 0.2));
        fill(to, '#7b5327', round(48, 31, 5, 12, -0.2));
        fill(to, '#ecdcc2', round(32, 37, 8, 8));
        fill(to, '#1b1512', round(32, 33, 3.6, 2.8));
        fill(to, '#1b1512', round(26, 25, 2));
        fill(to, '#1b1512', round(38, 25, 2));
        fill(to, '#c7616b', round(32, 43, 2.4, 3.4));
    },
    frog(to) {
        shade(to, '#6e5a3c', '#4d3f2a');
        const skin = '#6f9e2e';
        fill(to, skin, round(32, 40, 20, 14));
        fill(to, skin, round(32, 26, 15, 10));
        fill(to, '#557d20', round(13, 48, 8, 9, 0.5));
        fill(to, '#557d20', round(51, 48, 8, 9, -0.5));
        for (const x of [22, 42]) {
            fill(to, '#87b53e', round(x, 17, 5.5));
            fill(to, '#12140c', round(x, 17, 2.8));
        }
        fill(to, '#c8d68a', round(32, 45, 11, 7));
    },
};
